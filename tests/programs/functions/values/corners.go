// Arguments that the compiler describes as what they become, or not as they lie.
package main

import (
	"fmt"
	"os"
)

type inner struct {
	A uintptr
	B bool
	C uint8
	D uint64
}

type outer struct {
	I inner
	N int
}

var kept any

//go:noinline
func holes(o outer, n uint32) uint64 { return o.I.D + uint64(n) }

//go:noinline
func escapes(a, b, c, d, e, f, g, h, i int, j uint16, k uint8) (r int, s uint16) {
	kept = []any{&j, &k, &s}
	s = j
	return a + b + c + d + e + f + g + h + i, s
}

//go:noinline
func named(n int) (r string, s outer) {
	defer func() { kept = &s }()
	s.N = n
	return "named", s
}

// Its stack is too small at first; what it does not need is gone then.
//
//go:noinline
func grows(n int, unused *int, rest int) int {
	var room [4096]byte
	room[rest] = byte(rest)
	if rest > 0 {
		return grows(n, unused, rest-1) + int(room[rest-1])
	}
	return int(room[0])
}

func arg(function, name, format string, values ...any) {
	fmt.Printf("main.%s|remora.arg.%s|%s\n", function, name, fmt.Sprintf(format, values...))
}

func returns(function, format string, values ...any) {
	fmt.Printf("main.%s|remora.return|%s\n", function, fmt.Sprintf(format, values...))
}

func main() {
	for n := len(os.Args); n < len(os.Args)+6; n += 3 {
		o := outer{inner{uintptr(n), true, uint8(n + 1), uint64(n + 2)}, -n}
		arg("holes", "o", "{I: {A: %d, B: true, C: %d, D: %d}, N: %d}", n, n+1, n+2, -n)
		arg("holes", "n", "%d", n)
		returns("holes", "%d", holes(o, uint32(n)))
		arg("escapes", "i", "9")
		arg("escapes", "j", "%d", n)
		arg("escapes", "k", "%d", n+1)
		r, s := escapes(1, 2, 3, 4, 5, 6, 7, 8, 9, uint16(n), uint8(n+1))
		returns("escapes", "(%d, %d)", r, s)
		arg("named", "n", "%d", n)
		text, p := named(n)
		returns("named", "(%q, {I: {A: 0, B: false, C: 0, D: 0}, N: %d})", text, p.N)
		done := make(chan int)
		go func() { done <- grows(n, nil, 20) }()
		<-done
	}
}
