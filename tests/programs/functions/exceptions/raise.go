// Panics of several kinds within a probed function. Lines that begin "raised" say how often, and what is
// to be told.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"
)

type notFound struct{ code int }

func (e *notFound) Error() string { return "not found" }

type pair[A, B any] struct {
	a A
	b B
}

//go:noinline
func work(kind int) int {
	list := []int{1}
	switch kind {
	case 0:
		panic("plain text")
	case 1:
		panic(errors.New("an error"))
	case 2:
		panic(fmt.Errorf("outside: %w", errors.New("inside")))
	case 3:
		panic(&notFound{3})
	case 4:
		return list[kind+1]
	case 5:
		var nothing *notFound
		return nothing.code
	case 6:
		panic(42)
	case 7:
		panic(pair[map[string]int, *notFound]{})
	case 8:
		return len(list[kind:])
	case 9:
		return len(any(kind).(fmt.Stringer).String())
	case 10:
		return any("text").(int)
	case 11:
		var nothing any
		return nothing.(int)
	case 12:
		var reader io.Reader
		return len(reader.(fmt.Stringer).String())
	case 13:
		var bad *json.SyntaxError
		errors.As(json.Unmarshal([]byte("{]"), new(int)), &bad)
		panic(bad)
	case 14:
		<-expired.Done()
		panic(expired.Err())
	case 15:
		_, err := os.Open("/nowhere/at all")
		panic(err)
	case 16:
		_, err := strconv.Atoi("7x")
		panic(err)
	case 17:
		panic(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	case 18:
		panic(syscall.EACCES)
	case 19:
		_, err := url.Parse("http://[::1")
		panic(err)
	case 20:
		panic(&fs.PathError{Op: "read", Path: "own", Err: &notFound{3}})
	case 21:
		panic(&fs.PathError{Op: "read", Path: "wrapped", Err: fmt.Errorf("outside: %w", io.EOF)})
	}
	return kind
}

var expired, _ = context.WithDeadline(context.Background(), time.Time{})

func try(kind int) (caught int) {
	defer func() {
		if recover() != nil {
			caught = 1
		}
	}()
	return work(kind) * 0
}

func main() {
	fmt.Println("ready")
	var line [1]byte
	os.Stdin.Read(line[:])
	caught := 0
	for round := 0; round < 3; round++ {
		done := make(chan int)
		go func() {
			sum := 0
			for kind := 0; kind < 23; kind++ {
				sum += try(kind)
			}
			done <- sum
		}()
		caught += <-done
	}
	fmt.Println("caught", caught)
	fmt.Println("raised 3\tstring\tplain text")
	fmt.Println("raised 3\t*errors.errorString\tan error")
	fmt.Println("raised 3\t*fmt.wrapError\toutside: inside")
	fmt.Println("raised 3\t*main.notFound\t")
	fmt.Println("raised 3\truntime.boundsError\truntime error: index out of range [5] with length 1")
	fmt.Println("raised 3\truntime.errorString\truntime error: invalid memory address or nil pointer dereference")
	fmt.Println("raised 3\tint\t42")
	fmt.Println("raised 3\tmain.pair[map[string]int,*main.notFound]\t")
	fmt.Println("raised 3\truntime.boundsError\truntime error: slice bounds out of range [8:1]")
	fmt.Println("raised 3\t*runtime.TypeAssertionError\tinterface conversion: int is not fmt.Stringer: missing method String")
	fmt.Println("raised 3\t*runtime.TypeAssertionError\tinterface conversion: interface {} is string, not int")
	fmt.Println("raised 3\t*runtime.TypeAssertionError\tinterface conversion: interface {} is nil, not int")
	fmt.Println("raised 3\t*runtime.TypeAssertionError\tinterface conversion: interface is nil, not fmt.Stringer")
	fmt.Println("raised 3\t*json.SyntaxError\tinvalid character ']' looking for beginning of object key string")
	fmt.Println("raised 3\tcontext.deadlineExceededError\tcontext deadline exceeded")
	fmt.Println("raised 3\t*fs.PathError\topen /nowhere/at all: no such file or directory")
	fmt.Println("raised 3\t*strconv.NumError\tstrconv.Atoi: parsing \"7x\": invalid syntax")
	fmt.Println("raised 3\t*os.SyscallError\tconnect: connection refused")
	fmt.Println("raised 3\tsyscall.Errno\tpermission denied")
	fmt.Println("raised 3\t*url.Error\tparse \"http://[::1\": missing ']' in host")
	fmt.Println("raised 3\t*fs.PathError\t")
	fmt.Println("raised 3\t*fs.PathError\tread wrapped: outside: EOF")
	os.Exit(3)
}
