// probe is the doctor's program, on both ends of every connection it tries.
//
//	probe serve ADDRESS        answers every request with its own name ($POD, else the host name)
//	probe get URL              prints the answer to one request over a fresh connection
//	probe until URL WANTED     repeats `get` over fresh connections until the answer is WANTED; prints milliseconds and failures
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	requestTimeout = 2 * time.Second
	dialTimeout    = 250 * time.Millisecond // a lost first packet is otherwise repeated after a whole second
	untilTimeout   = 20 * time.Second
	untilPause     = 10 * time.Millisecond
	maxAnswer      = 4096
)

func main() {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		serve(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "get":
		answer, err := get(os.Args[2])
		if err != nil {
			fail(err)
		}
		fmt.Println(answer)
	case len(os.Args) == 4 && os.Args[1] == "until":
		until(os.Args[2], os.Args[3])
	default:
		fail("usage: probe serve ADDRESS | get URL | until URL WANTED")
	}
}

func fail(what any) {
	fmt.Fprintln(os.Stderr, "probe:", what)
	os.Exit(1)
}

func serve(address string) {
	name := os.Getenv("POD")
	if name == "" {
		name, _ = os.Hostname()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-stop; os.Exit(0) }()
	fail(http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })))
}

func get(url string) (string, error) {
	client := http.Client{Timeout: requestTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       (&net.Dialer{Timeout: dialTimeout}).DialContext,
	}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, response.Status)
	}
	return strings.TrimSpace(string(body)), err
}

func until(url, wanted string) {
	start, failures, last := time.Now(), 0, "nothing yet"
	for time.Since(start) < untilTimeout {
		answer, err := get(url)
		if err == nil && answer == wanted {
			fmt.Println(time.Since(start).Milliseconds(), failures)
			return
		}
		if last = answer; err != nil {
			failures, last = failures+1, err.Error()
		}
		time.Sleep(untilPause)
	}
	fail(fmt.Sprintf("%s did not answer %q within %s; last: %s", url, wanted, untilTimeout, last))
}
