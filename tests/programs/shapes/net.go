// What net/http can do with a connection, both ends in one process, which tells what it did as the other shapes do.
// Its listeners take MPTCP, as Go's do by default since 1.24.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

var told sync.Mutex

func tell(kind, method, path string, status, sent, received any, port string) {
	told.Lock()
	defer told.Unlock()
	fmt.Printf("told net %s %d %s %s %v %v/%v %s\n", kind, os.Getpid(), method, path, status, sent, received, port)
}

func within(path, server string) {
	told.Lock()
	defer told.Unlock()
	fmt.Printf("within net %s %s\n", path, server)
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func listen() (net.Listener, string) {
	listener := must(net.Listen("tcp4", "127.0.0.1:0"))
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return listener, port
}

// A client whose connections are MPTCP's, if asked.
func client(multipath bool) *http.Client {
	dialer := &net.Dialer{}
	dialer.SetMultipathTCP(multipath)
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, ExpectContinueTimeout: 10 * time.Second}}
}

// Asks and tells of it; sizes that are not whole are not told.
func ask(by *http.Client, method, port, path string, body io.Reader, length int, headers ...string) *http.Response {
	request := must(http.NewRequest(method, "http://127.0.0.1:"+port+path, body))
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response := must(by.Do(request))
	received := must(io.ReadAll(response.Body))
	response.Body.Close()
	tell("client", method, path, response.StatusCode, length, len(received), port)
	return response
}

// What a raw connection says and is answered, up to an ending.
func raw(conn net.Conn, from *bufio.Reader, say, ending string) {
	must(conn.Write([]byte(say)))
	seen := ""
	for !strings.HasSuffix(seen, ending) {
		seen += string(must(from.ReadByte()))
	}
}

func main() {
	fmt.Println("ready")
	stdin := bufio.NewReader(os.Stdin)
	must(stdin.ReadString('\n'))

	back, backPort := listen()
	go http.Serve(back, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "back")
		tell("server", r.Method, r.URL.Path, 200, 0, 4, backPort)
	}))
	listener, port := listen()
	plain, multipath := client(false), client(true)
	file := must(os.CreateTemp("", "shapes"))
	os.Remove(file.Name())
	must(file.Write(make([]byte, 100_000)))

	served := func(r *http.Request, status, sent, received any) {
		tell("server", r.Method, r.URL.Path, status, sent, received, port)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/hello/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello")
		served(r, 200, 0, 5)
	})
	mux.HandleFunc("/asks/", func(w http.ResponseWriter, r *http.Request) {
		by := plain
		if strings.HasPrefix(r.URL.Path, "/asks/multipath") {
			by = multipath
		}
		path := strings.Replace(r.URL.Path, "asks", "asked", 1)
		within(path, r.URL.Path)
		ask(by, "GET", backPort, path, nil, 0)
		fmt.Fprint(w, "asked")
		served(r, 200, 0, 5)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body := must(io.ReadAll(r.Body))
		must(w.Write(body))
		served(r, 200, len(body), len(body))
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		for range 3 {
			fmt.Fprint(w, "part")
			w.(http.Flusher).Flush()
		}
		w.Header().Set("X-Sum", "12")
		served(r, 200, 0, 12)
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(103)
		w.WriteHeader(103)
		fmt.Fprint(w, "hints")
		served(r, 200, 0, 5)
	})
	mux.HandleFunc("/too-large", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(413)
		// It has asked before it sends, and was not told to go on.
		served(r, 413, "-", 0)
	})
	mux.HandleFunc("/range", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "f.bin", time.Time{}, file)
		served(r, 206, 0, 50_000)
	})
	mux.HandleFunc("/head", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		must(w.Write(make([]byte, 1000)))
		served(r, 200, 0, 0)
	})
	mux.HandleFunc("/none", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(204)
		served(r, 204, 0, 0)
	})
	mux.HandleFunc("/unmodified", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(304)
		served(r, 304, 0, 0)
	})
	mux.HandleFunc("/hijacked", func(w http.ResponseWriter, r *http.Request) {
		conn, both, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		served(r, 200, 0, 2)
		must(conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
		// The next one is served by hand.
		must(http.ReadRequest(both.Reader))
		tell("server", "GET", "/by-hand", 200, 0, 2, port)
		must(conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
		conn.Close()
	})
	// Frames that look like requests, and are none.
	frames := func(w http.ResponseWriter, r *http.Request) {
		conn, both, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		served(r, 101, 0, 0)
		must(conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: frames\r\n\r\n")))
		for range 3 {
			line := must(both.ReadString('!'))
			must(conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + line)))
		}
		conn.Close()
	}
	mux.HandleFunc("/frames", frames)
	mux.HandleFunc("/inner-frames", frames)
	// A proxy between the two.
	to := must(url.Parse("http://127.0.0.1:" + port + "/inner-frames"))
	proxy := &httputil.ReverseProxy{Transport: plain.Transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.Path = to.Scheme, to.Host, to.Path
	}}
	mux.HandleFunc("/through", func(w http.ResponseWriter, r *http.Request) {
		served(r, 101, 0, 0)
		tell("client", "GET", "/inner-frames", 101, 0, 0, port)
		within("/inner-frames", "/through")
		proxy.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: mux}
	go server.Serve(listener)

	for _, by := range []struct {
		name   string
		client *http.Client
	}{{"plain", plain}, {"multipath", multipath}} {
		for number := range 3 {
			ask(by.client, "GET", port, fmt.Sprintf("/hello/%s/%d", by.name, number), nil, 0)
			ask(by.client, "GET", port, fmt.Sprintf("/asks/%s/%d", by.name, number), nil, 0)
		}
	}
	ask(plain, "POST", port, "/echo", strings.NewReader(strings.Repeat("x", 30_000)), 30_000, "Expect", "100-continue")
	ask(plain, "GET", port, "/trailers", nil, 0)
	ask(plain, "GET", port, "/hints", nil, 0)
	ask(plain, "GET", port, "/range", nil, 0, "Range", "bytes=50000-")
	ask(plain, "HEAD", port, "/head", nil, 0)
	ask(plain, "GET", port, "/none", nil, 0)
	ask(plain, "GET", port, "/unmodified", nil, 0)

	request := must(http.NewRequest("POST", "http://127.0.0.1:"+port+"/too-large", strings.NewReader(strings.Repeat("x", 1<<20))))
	request.Header.Set("Expect", "100-continue")
	response := must(plain.Do(request))
	response.Body.Close()
	tell("client", "POST", "/too-large", response.StatusCode, "-", 0, port)

	dial := func() (net.Conn, *bufio.Reader) {
		conn := must(net.Dial("tcp", "127.0.0.1:"+port))
		return conn, bufio.NewReader(conn)
	}
	conn, from := dial()
	raw(conn, from, "GET /hijacked HTTP/1.1\r\nHost: h\r\n\r\n", "ok")
	tell("client", "GET", "/hijacked", 200, 0, 2, port)
	raw(conn, from, "GET /by-hand HTTP/1.1\r\nHost: h\r\n\r\n", "ok")
	tell("client", "GET", "/by-hand", 200, 0, 2, port)
	conn.Close()
	for _, path := range []string{"/frames", "/through"} {
		conn, from := dial()
		raw(conn, from, "GET "+path+" HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: frames\r\n\r\n", "\r\n\r\n")
		tell("client", "GET", path, 101, 0, 0, port)
		for number := range 3 {
			raw(conn, from, fmt.Sprintf("GET /no-request/%d HTTP/1.1\r\nHost: h\r\n\r\n!", number), "!")
		}
		conn.Close()
	}
	// Every handler has told what it did when it has ended.
	plain.CloseIdleConnections()
	multipath.CloseIdleConnections()
	server.Shutdown(context.Background())
	fmt.Println("done")
	stdin.ReadString('\n')
}
