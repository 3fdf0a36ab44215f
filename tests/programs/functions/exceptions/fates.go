// A server whose handlers panic: what they recover from, what leaves them, and at last what ends the
// program. Lines that begin "fate" say how many there are with a message, and what becomes of them.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
)

//go:noinline
func work(what string) int {
	panic(errors.New(what))
}

func recovers(what string) {
	defer func() { _ = recover() }()
	work(what)
}

// What is raised while another panic is on its way takes its place, or is recovered from by itself.
func replaces() {
	defer func() { _ = recover() }()
	defer func() { work("second") }()
	work("first")
}

func nests() {
	defer func() { _ = recover() }()
	defer func() { recovers("nested") }()
	work("around")
}

func again() {
	defer func() { _ = recover() }()
	func() {
		defer func() { panic(recover()) }()
		work("raised again")
	}()
}

func main() {
	log.SetOutput(io.Discard)
	handle := func(path string, handler func(http.ResponseWriter)) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { handler(w) })
	}
	handle("/recovers", func(w http.ResponseWriter) {
		recovers("recovered")
		replaces()
		nests()
		again()
	})
	handle("/leaves", func(w http.ResponseWriter) { work("left") })
	handle("/half", func(w http.ResponseWriter) {
		fmt.Fprintln(w, "half of it")
		w.(http.Flusher).Flush()
		work("left half")
	})
	handle("/aborts", func(w http.ResponseWriter) { panic(http.ErrAbortHandler) })
	handle("/fails", func(w http.ResponseWriter) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		work("answered")
	})
	handle("/ends", func(w http.ResponseWriter) {
		fmt.Println("fate 1\trecovered\tcaught")
		fmt.Println("fate 1\tsecond\tcaught")
		fmt.Println("fate 1\tfirst\t-")
		fmt.Println("fate 1\taround\tcaught")
		fmt.Println("fate 1\tnested\tcaught")
		fmt.Println("fate 1\traised again\t-")
		fmt.Println("fate 1\traised again\tcaught")
		fmt.Println("fate 1\tleft\tnot caught")
		fmt.Println("fate 1\tleft half\tnot caught")
		fmt.Println("fate 1\tnet/http: abort Handler\tnot caught")
		fmt.Println("fate 1\tanswered\tcaught")
		if os.Args[1] == "throw" {
			fmt.Println("fate 1\tsync: unlock of unlocked mutex\tnot caught")
			new(sync.Mutex).Unlock()
		}
		fmt.Println("fate 1\tthe end\tnot caught")
		// From this goroutine's the server would recover.
		go func() { work("the end") }()
		select {}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("ready\n%d\n", listener.Addr().(*net.TCPAddr).Port)
	_ = http.Serve(listener, nil)
}
