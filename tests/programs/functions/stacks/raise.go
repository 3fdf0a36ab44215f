// Panics, and says before itself who has called: a line that begins `stack`, with the names of functions
// from the innermost outward.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
)

//go:noinline
func say() {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var names []string
	for {
		frame, more := frames.Next()
		names = append(names, frame.Function)
		if !more {
			break
		}
	}
	fmt.Println("stack", strings.Join(names, " "))
}

type thing struct{ number int }

func inlined(at int, from []int) int {
	say()
	return from[at]
}

//go:noinline
func (t *thing) method(at int) int {
	return inlined(at+t.number, make([]int, 3)) + 1
}

//go:noinline
func deep(count int) int {
	if count == 0 {
		say()
		panic("deep")
	}
	return deep(count-1) + 1
}

//go:noinline
func nothing(t *thing) int {
	say()
	return t.number
}

//go:noinline
func work(kind int) (result int) {
	defer func() {
		if recover() != nil {
			result = -1
		}
	}()
	switch kind {
	case 0:
		return (&thing{1}).method(9)
	case 1:
		return deep(8)
	}
	return nothing(nil)
}

func main() {
	fmt.Println("ready")
	reader := bufio.NewReader(os.Stdin)
	reader.ReadString('\n')
	for kind := range 3 {
		work(kind)
	}
	done := make(chan int)
	go func() { done <- work(1) }()
	<-done
}
