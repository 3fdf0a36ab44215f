// A client on net/http: `client URL COUNT`. Prints the sum of what it got.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func main() {
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	var statuses, bytes int64
	for number := 0; number < count; number++ {
		url := fmt.Sprintf("%s/%d", os.Args[1], number)
		var response *http.Response
		if number%3 == 0 {
			response, err = http.Post(url, "text/plain", strings.NewReader(strings.Repeat("p", number)))
		} else {
			response, err = http.Get(url)
		}
		if err != nil {
			panic(err)
		}
		got, err := io.Copy(io.Discard, response.Body)
		if err != nil {
			panic(err)
		}
		response.Body.Close()
		statuses += int64(response.StatusCode)
		bytes += got
	}
	fmt.Println(statuses, bytes)
}
