// Command go_storm is a stock grpc-go client that makes many unary calls at once over one connection to an agent's socket.
//
// Usage: go_storm SOCKET CONCURRENT CALLS BYTES HEAD. HEAD is the hex of a SignRequest without its item; each call adds an item
// of its own, with a message of BYTES bytes. Prints one line of JSON: how often each outcome was heard, by reason where
// the answer has one and by gRPC's status where it has none.
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const method = "/capsign.agent.v1.SigningService/Sign"

// raw hands bytes to gRPC as they are: the test has written the request.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }

func (raw) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 5 {
		return fmt.Errorf("usage: go_storm SOCKET CONCURRENT CALLS BYTES HEAD")
	}
	var numbers [3]int
	for at := range numbers {
		number, err := strconv.Atoi(arguments[at+1])
		if err != nil {
			return err
		}
		numbers[at] = number
	}
	head, err := hex.DecodeString(arguments[4])
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("unix:"+arguments[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	heard := map[string]int{}
	var lock sync.Mutex
	var left atomic.Int64
	left.Store(int64(numbers[1]))
	var workers sync.WaitGroup
	for range numbers[0] {
		workers.Go(func() {
			for left.Add(-1) >= 0 {
				outcome := call(connection, request(head, numbers[2]))
				lock.Lock()
				heard[outcome]++
				lock.Unlock()
			}
		})
	}
	workers.Wait()
	return json.NewEncoder(os.Stdout).Encode(heard)
}

func call(connection *grpc.ClientConn, request []byte) string {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var answer []byte
	err := connection.Invoke(ctx, method, &request, &answer, grpc.ForceCodec(raw{}))
	if err == nil {
		return "SIGNED"
	}
	told := status.Convert(err)
	for _, detail := range told.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return "bare " + told.Code().String() + ": " + told.Message()
}

// request adds field 5, a SignItem of an intent id (UUIDv7) and a message.
func request(head []byte, size int) []byte {
	intent := make([]byte, 16)
	rand.Read(intent[6:])
	var clock [8]byte
	binary.BigEndian.PutUint64(clock[:], uint64(time.Now().UnixMilli()))
	copy(intent, clock[2:])
	intent[6] = intent[6]&0x0f | 0x70
	intent[8] = intent[8]&0x3f | 0x80
	item := append([]byte{1<<3 | 2, 16}, intent...)
	item = append(binary.AppendUvarint(append(item, 2<<3|2), uint64(size)), make([]byte, size)...)
	wire := append(append([]byte(nil), head...), 5<<3|2)
	return append(binary.AppendUvarint(wire, uint64(len(item))), item...)
}
