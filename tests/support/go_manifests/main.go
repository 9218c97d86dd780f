// Reads files of manifests as kubectl does, with its own libraries. Standard input: a file in base64 on each line. Standard output:
// for each a line of JSON, {"objects": [...]} or {"error": "..."}.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	jsonutil "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func read(data []byte) (objects []any, err error) {
	defer func() {
		if failed := recover(); failed != nil {
			err = fmt.Errorf("panic: %v", failed)
		}
	}()
	// As cli-runtime's StreamVisitor.
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	objects = []any{}
	for {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			if errors.Is(err, io.EOF) {
				return objects, nil
			}
			return nil, err
		}
		raw = bytes.TrimSpace(raw)
		if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
			continue
		}
		var object any
		if err := jsonutil.Unmarshal(raw, &object); err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	out := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		data, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		answer := map[string]any{}
		if objects, err := read(data); err != nil {
			answer["error"] = err.Error()
		} else {
			answer["objects"] = objects
		}
		line, err := json.Marshal(answer)
		if err != nil {
			panic(err)
		}
		out.Write(append(line, '\n'))
		out.Flush() // who asks waits for each answer
	}
}
