// A little of everything that Go's runtime does, the same each time.
package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"
)

func fibonacci(n int) int {
	if n < 2 {
		return n
	}
	return fibonacci(n-1) + fibonacci(n-2)
}

func deep(n int) int {
	var frame [256]byte
	if n == 0 {
		return 0
	}
	return deep(n-1) + int(frame[n%256]) + 1
}

func caught(wrong func()) (err any) {
	defer func() { err = recover() }()
	wrong()
	return nil
}

func main() {
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	results := make(chan int, 50)
	var all sync.WaitGroup
	for n := 0; n < 50; n++ {
		all.Add(1)
		go func() { defer all.Done(); results <- fibonacci(n%12) + deep(n*10) }()
	}
	all.Wait()
	close(results)
	var sorted []int
	for result := range results {
		sorted = append(sorted, result)
	}
	sort.Ints(sorted)
	fmt.Println(sorted)
	var nothing *sync.Mutex
	fmt.Println(caught(func() { panic(errors.New("raised")) }), caught(func() { nothing.Lock() }), caught(func() { sorted[99]++ }))
	garbage := map[int]string{}
	for n := 0; n < 5000; n++ {
		garbage[n%300] = strings.Repeat("x", n%100)
	}
	runtime.GC()
	fmt.Printf("%d %x %s\n", len(garbage), sha256.Sum256([]byte("a")), regexp.MustCompile("b+").ReplaceAllString("abbbc", "x"))
	select {
	case <-time.After(20 * time.Millisecond):
		fmt.Println("timer")
	}
	out, err := exec.Command("sh", "-c", "echo out; exit 3").Output()
	fmt.Printf("%s%v\n", out, err)
	os.Exit(4)
}
