// Goroutines whose stacks grow and are copied while the garbage collector runs, recursion, and
// panics that unwind through probed frames.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

var downs, works, risks atomic.Int64

//go:noinline
func down(n int, pad [64]int64) int64 {
	downs.Add(1)
	if n == 0 {
		return pad[0]
	}
	pad[n%64] += int64(n)
	return down(n-1, pad) + pad[n%64]%7
}

//go:noinline
func work(n int) int64 {
	works.Add(1)
	garbage := make([][]byte, 0, 8)
	for i := range 8 {
		garbage = append(garbage, make([]byte, 64+i*n%512))
	}
	if n%50 == 0 {
		runtime.GC()
	}
	return down(n%300, [64]int64{}) + int64(len(garbage))
}

//go:noinline
func risk(n int) (result int64) {
	risks.Add(1)
	defer func() {
		if caught := recover(); caught != nil {
			result = -int64(n)
		}
	}()
	if n%3 == 0 {
		panic(fmt.Sprint("at ", n))
	}
	return work(n)
}

func main() {
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	var group sync.WaitGroup
	sums := make([]int64, 32)
	for g := range sums {
		group.Add(1)
		// A new goroutine has a small stack.
		go func() {
			defer group.Done()
			for n := range 15 {
				sums[g] += risk(g*15 + n)
			}
		}()
	}
	group.Wait()
	fmt.Println("sums", sums)
	fmt.Println("calls main.down", downs.Load())
	fmt.Println("calls main.work", works.Load())
	fmt.Println("calls main.risk", risks.Load())
}
