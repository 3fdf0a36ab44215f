// Calls `main.price` as often as a line says and answers with the CPU time, in nanoseconds.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

var errNobody = errors.New("nobody asks")

//go:noinline
func rate(customer string) int { return len(customer) & 3 }

//go:noinline
func price(customer string, count int) (int, error) {
	if customer == "" {
		return 0, errNobody
	}
	return count*3 + rate(customer), nil
}

// cpuNs asks for CLOCK_THREAD_CPUTIME_ID.
func cpuNs() int64 {
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 3, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

// On the first thread, which is the only one that some tracers see.
func init() { runtime.LockOSThread() }

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		count, _ := strconv.Atoi(lines.Text())
		begun := cpuNs()
		for n := 0; n < count; n++ {
			cents, err := price("Ada Lovelace", n&1023)
			if cents != n&1023*3 || err != nil {
				os.Exit(1)
			}
		}
		fmt.Println(cpuNs() - begun)
	}
}
