// Asks another server before it answers: `front PORT URL`. The first part of the path says how, and the
// whole of it is what it asks for.
package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	back, err := url.Parse(os.Args[2])
	if err != nil {
		panic(err)
	}
	kept := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	timed := &http.Client{Transport: kept.Transport, Timeout: time.Minute}
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	proxy := httputil.NewSingleHostReverseProxy(back)

	ask := func(client *http.Client, w io.Writer, method, path string, body io.Reader) {
		request, err := http.NewRequest(method, os.Args[2]+path, body)
		if err != nil {
			panic(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			panic(err)
		}
		_, _ = io.Copy(w, answer.Body)
		answer.Body.Close()
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		switch strings.Split(path, "/")[1] {
		case "kept":
			ask(kept, w, "GET", path, nil)
		case "timed":
			ask(timed, w, "GET", path, nil)
		case "fresh":
			ask(fresh, w, "GET", path, nil)
		case "post":
			// Without a length: it is sent in chunks.
			ask(kept, w, "POST", path, io.MultiReader(bytes.NewReader(make([]byte, 20000))))
		case "twice":
			ask(kept, io.Discard, "GET", path, nil)
			ask(kept, w, "GET", path, nil)
		case "proxy":
			proxy.ServeHTTP(w, r)
		case "spawned":
			// Another goroutine asks.
			done := make(chan struct{})
			go func() {
				ask(kept, w, "GET", path, nil)
				close(done)
			}()
			<-done
		}
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
