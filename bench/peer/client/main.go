// Command client is an application in Go that has OpenBao's transit engine sign as fast as it is answered: stock net/http over
// the Unix socket of the proxy, connections kept for every caller. It counts as bench/go_load does and prints what that prints.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	warmUp  = 500 * time.Millisecond
	timeout = 30 * time.Second
)

var paths = map[string]string{
	"ED25519": "http://proxy/v1/transit/sign/signing",
	"HS256":   "http://proxy/v1/transit/hmac/mac/sha2-256",
}

type input struct {
	Input string `json:"input"`
}

// request has one input, or a batch of them.
type request struct {
	Input string  `json:"input,omitempty"`
	Batch []input `json:"batch_input,omitempty"`
}

type made struct {
	Signature string `json:"signature"`
	HMAC      string `json:"hmac"`
}

type answer struct {
	Data struct {
		made
		Batch []made `json:"batch_results"`
	} `json:"data"`
}

// tally is what one caller saw. Latencies are of calls within the time that counts.
type tally struct {
	latencies     []time.Duration
	signatures    int
	allSignatures int
	errors        int
}

type load struct {
	client *http.Client
	url    string
	batch  int
	begin  time.Time
	end    time.Time
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	seconds := flag.Float64("seconds", 4, "seconds to measure")
	callers := flag.Int("callers", 1, "goroutines that call")
	batch := flag.Int("batch", 1, "signatures a call")
	algorithm := flag.String("algorithm", "ED25519", "or HS256")
	flag.Parse()
	url, known := paths[*algorithm]
	if flag.NArg() != 1 || !known {
		return fmt.Errorf("usage: client [flags] SOCKET, with an algorithm of ED25519, HS256")
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", flag.Arg(0))
	}
	transport := &http.Transport{DialContext: dial, MaxIdleConns: *callers, MaxIdleConnsPerHost: *callers}
	begin := time.Now().Add(warmUp)
	all := load{&http.Client{Transport: transport, Timeout: timeout}, url, *batch, begin,
		begin.Add(time.Duration(*seconds * float64(time.Second)))}
	tallies := make([]tally, *callers)
	var workers sync.WaitGroup
	for at := range tallies {
		workers.Go(func() { tallies[at] = all.caller() })
	}
	workers.Wait()
	return report(tallies, *seconds)
}

func (l load) caller() tally {
	var seen tally
	for {
		started := time.Now()
		if !started.Before(l.end) {
			return seen
		}
		signed, err := l.call()
		ended := time.Now()
		seen.allSignatures += signed
		if err != nil {
			if seen.errors == 0 {
				fmt.Fprintln(os.Stderr, err)
			}
			seen.errors++
		}
		if !started.Before(l.begin) && !ended.After(l.end) {
			seen.latencies = append(seen.latencies, ended.Sub(started))
			seen.signatures += signed
		}
	}
}

// call makes one call, and says how many signatures it gave.
func (l load) call() (int, error) {
	message := base64.StdEncoding.EncodeToString(make([]byte, 100))
	asked := request{Input: message}
	if l.batch > 1 {
		asked = request{Batch: make([]input, l.batch)}
		for at := range asked.Batch {
			asked.Batch[at].Input = message
		}
	}
	body, err := json.Marshal(asked)
	if err != nil {
		return 0, err
	}
	response, err := l.client.Post(l.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var told answer
	if err := json.NewDecoder(response.Body).Decode(&told); err != nil {
		return 0, err
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil { // read to its end, so that the connection is kept
		return 0, err
	}
	results := told.Data.Batch
	if l.batch == 1 {
		results = []made{told.Data.made}
	}
	signed := 0
	for _, one := range results {
		if one.Signature != "" || one.HMAC != "" {
			signed++
		}
	}
	if signed != l.batch {
		return signed, fmt.Errorf("%s: %d of %d were signed", response.Status, signed, l.batch)
	}
	return signed, nil
}

func report(tallies []tally, seconds float64) error {
	var latencies []time.Duration
	signatures, all, errors := 0, 0, 0
	for _, one := range tallies {
		latencies = append(latencies, one.latencies...)
		signatures += one.signatures
		all += one.allSignatures
		errors += one.errors
	}
	if len(latencies) == 0 {
		return fmt.Errorf("no call was answered within the time of the cell")
	}
	slices.Sort(latencies)
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"sps":            float64(signatures) / seconds,
		"p50_us":         micros(latencies[len(latencies)/2]),
		"p99_us":         micros(latencies[min(len(latencies)*99/100, len(latencies)-1)]),
		"errors":         errors,
		"all_signatures": all,
		"cpu_seconds":    time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds(),
	})
}

func micros(of time.Duration) float64 { return float64(of) / float64(time.Microsecond) }
