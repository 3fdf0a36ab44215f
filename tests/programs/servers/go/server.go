// The scenes' endpoints on net/http: `server PORT`.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

func main() {
	big := make([]byte, 1<<20)
	whole := func(w http.ResponseWriter, body []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}
	http.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"remora"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", `"remora"`)
		whole(w, []byte("hello\n"))
	})
	http.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) { whole(w, big) })
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		whole(w, body)
	})
	http.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/hello", http.StatusFound)
	})
	http.HandleFunc("/none", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	http.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for number := 0; number < 3; number++ {
			fmt.Fprintf(w, "part %d\n", number)
			w.(http.Flusher).Flush()
		}
	})
	http.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		for number := 0; number < 3; number++ {
			_, _ = w.Write(big[:100_000])
		}
	})
	if err := http.ListenAndServe("127.0.0.1:"+os.Args[1], nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
