// Command go_load is an application in Go that signs as fast as it is answered: a stock grpc-go client with the code
// that protoc makes of proto/, one connection, one RPC a call. It prints one line of JSON, with the names that bench/load.py
// has.
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	agent "capsign.test/go_load/capsign/agent/v1"
	types "capsign.test/go_load/capsign/types/v1"
)

const (
	warmUp  = 500 * time.Millisecond
	timeout = 30 * time.Second
)

// tally is what one caller saw. Latencies are of calls within the time that counts.
type tally struct {
	latencies     []time.Duration
	signatures    int
	allSignatures int
	outcomes      map[string]int
}

type load struct {
	client    agent.SigningServiceClient
	handle    string
	algorithm types.Algorithm
	protocol  string
	batch     int
	begin     time.Time
	end       time.Time
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
	batch := flag.Int("batch", 1, "signatures a call; 1: Sign, more: SignBatch")
	algorithm := flag.String("algorithm", "ED25519", "as in algorithms.proto")
	purpose := flag.String("purpose", "jwt", "the purpose of the handle")
	protocol := flag.String("protocol", "jwt", "the protocol of the context")
	flag.Parse()
	if flag.NArg() != 1 {
		return fmt.Errorf("usage: go_load [flags] SOCKET")
	}
	number, known := types.Algorithm_value["ALGORITHM_"+*algorithm]
	if !known {
		return fmt.Errorf("no algorithm is called %s", *algorithm)
	}
	connection, err := grpc.NewClient("unix:"+flag.Arg(0), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := agent.NewSigningServiceClient(connection)
	handle, err := handleFor(client, *purpose)
	if err != nil {
		return err
	}
	begin := time.Now().Add(warmUp)
	all := load{client, handle, types.Algorithm(number), *protocol, *batch, begin,
		begin.Add(time.Duration(*seconds * float64(time.Second)))}
	tallies := make([]tally, *callers)
	var workers sync.WaitGroup
	for at := range tallies {
		workers.Go(func() { tallies[at] = all.caller() })
	}
	workers.Wait()
	return report(tallies, *seconds)
}

func handleFor(client agent.SigningServiceClient, purpose string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	listed, err := client.ListHandles(ctx, &agent.ListHandlesRequest{})
	if err != nil {
		return "", err
	}
	for _, handle := range listed.Handles {
		if handle.Purpose == purpose {
			return handle.Id, nil
		}
	}
	return "", fmt.Errorf("the socket has no handle for %s", purpose)
}

func (l load) caller() tally {
	seen := tally{outcomes: map[string]int{}}
	for {
		started := time.Now()
		if !started.Before(l.end) {
			return seen
		}
		signed, outcome := l.call()
		ended := time.Now()
		seen.allSignatures += signed
		seen.outcomes[outcome]++
		if !started.Before(l.begin) && !ended.After(l.end) {
			seen.latencies = append(seen.latencies, ended.Sub(started))
			seen.signatures += signed
		}
	}
}

// call makes one call, and says how many signatures it gave and how it ended.
func (l load) call() (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	suffix := &types.ContextSuffix{Protocol: l.protocol}
	if l.batch == 1 {
		_, err := l.client.Sign(ctx, &agent.SignRequest{
			HandleId: l.handle, Algorithm: l.algorithm, Context: suffix, Item: item(),
		})
		if err != nil {
			return 0, outcome(err)
		}
		return 1, "SIGNED"
	}
	group := &agent.SignGroup{HandleId: l.handle, Algorithm: l.algorithm, Context: suffix}
	for range l.batch {
		group.Items = append(group.Items, item())
	}
	answer, err := l.client.SignBatch(ctx, &agent.SignBatchRequest{Groups: []*agent.SignGroup{group}})
	if err != nil {
		return 0, outcome(err)
	}
	signed, failed := 0, "SIGNED"
	for _, one := range answer.Groups[0].Items {
		if len(one.Signatures) > 0 {
			signed++
		} else {
			failed = one.Failure.GetReason().String()
		}
	}
	return signed, failed
}

// outcome is the reason of a refusal, or "bare" and gRPC's own words where it has none of ours.
func outcome(err error) string {
	told := status.Convert(err)
	for _, detail := range told.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return "bare " + told.Code().String() + ": " + told.Message()
}

// item has a message of 100 bytes and an intent id of its own, a UUIDv7.
func item() *agent.SignItem {
	intent := make([]byte, 16)
	rand.Read(intent[6:])
	var clock [8]byte
	binary.BigEndian.PutUint64(clock[:], uint64(time.Now().UnixMilli()))
	copy(intent, clock[2:])
	intent[6] = intent[6]&0x0f | 0x70
	intent[8] = intent[8]&0x3f | 0x80
	return &agent.SignItem{IntentId: intent, Input: &agent.SignItem_Message{Message: make([]byte, 100)}}
}

func report(tallies []tally, seconds float64) error {
	var latencies []time.Duration
	signatures, all, outcomes := 0, 0, map[string]int{}
	for _, one := range tallies {
		latencies = append(latencies, one.latencies...)
		signatures += one.signatures
		all += one.allSignatures
		for name, count := range one.outcomes {
			outcomes[name] += count
		}
	}
	if len(latencies) == 0 {
		return fmt.Errorf("no call was answered within the time of the cell: %v", outcomes)
	}
	slices.Sort(latencies)
	errors := 0
	for name, count := range outcomes {
		if name != "SIGNED" {
			errors += count
		}
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"sps":            float64(signatures) / seconds,
		"p50_us":         micros(latencies[len(latencies)/2]),
		"p99_us":         micros(latencies[min(len(latencies)*99/100, len(latencies)-1)]),
		"errors":         errors,
		"outcomes":       outcomes,
		"all_signatures": all,
		"cpu_seconds":    time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds(),
	})
}

func micros(of time.Duration) float64 { return float64(of) / float64(time.Microsecond) }
