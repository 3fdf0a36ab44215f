// A net/http server that answers everything with 200 bytes. Its argument is the port.
package main

import (
	"bytes"
	"log"
	"net/http"
	"os"
)

func main() {
	body := bytes.Repeat([]byte("x"), 200)
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", "200")
		w.Write(body)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
