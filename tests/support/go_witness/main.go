// Command go_witness is a witness written from C2SP tlog-witness, tlog-cosignature and signed-note alone, to hold ours
// against: it shares no line with this project. Its state is a file for each log, replaced atomically.
//
// Usage: go_witness -dir DIR -name NAME -listen HOST:PORT -log VKEY [-log VKEY…]. Prints its two verifier keys and then the
// address on which it listens.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	plainEd25519 = 0x01
	cosigEd25519 = 0x04
	cosigMLDSA44 = 0x06
)

type key struct {
	name   string
	kind   byte
	public []byte
}

func (k key) id() []byte {
	sum := sha256.Sum256(append(append([]byte(k.name), '\n', k.kind), k.public...))
	return sum[:4]
}

func (k key) vkey() string {
	return fmt.Sprintf("%s+%s+%s", k.name, hex.EncodeToString(k.id()),
		base64.StdEncoding.EncodeToString(append([]byte{k.kind}, k.public...)))
}

func parseVkey(text string) (key, error) {
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 {
		return key{}, errors.New("a vkey has three parts")
	}
	data, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(data) == 0 {
		return key{}, errors.New("the key is not base64")
	}
	k := key{parts[0], data[0], data[1:]}
	if hex.EncodeToString(k.id()) != parts[1] {
		return key{}, errors.New("the id is not that of the key")
	}
	return k, nil
}

type checkpoint struct {
	origin string
	size   int64
	root   tlog.Hash
	text   string
	lines  []string
}

func parseCheckpoint(data []byte) (checkpoint, error) {
	var c checkpoint
	whole := string(data)
	at := strings.LastIndex(whole, "\n\n")
	if at < 0 || !strings.HasSuffix(whole, "\n") {
		return c, errors.New("not a note")
	}
	c.text = whole[:at+1]
	c.lines = strings.Split(strings.TrimSuffix(whole[at+2:], "\n"), "\n")
	body := strings.Split(c.text, "\n")
	if len(body) < 4 || body[0] == "" {
		return c, errors.New("not a checkpoint")
	}
	c.origin = body[0]
	size, err := strconv.ParseInt(body[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != body[1] {
		return c, errors.New("the size is malformed")
	}
	c.size = size
	root, err := base64.StdEncoding.DecodeString(body[2])
	if err != nil || len(root) != 32 {
		return c, errors.New("the root is malformed")
	}
	copy(c.root[:], root)
	return c, nil
}

func cosignedMessage(name string, when uint64, c checkpoint) []byte {
	var b bytes.Buffer
	b.WriteString("subtree/v1\n\x00")
	b.WriteByte(byte(len(name)))
	b.WriteString(name)
	binary.Write(&b, binary.BigEndian, when)
	b.WriteByte(byte(len(c.origin)))
	b.WriteString(c.origin)
	binary.Write(&b, binary.BigEndian, uint64(0))
	binary.Write(&b, binary.BigEndian, uint64(c.size))
	b.Write(c.root[:])
	return b.Bytes()
}

// verify says whether the signature of a line is by k.
func (k key) verify(c checkpoint, signature []byte) bool {
	switch k.kind {
	case plainEd25519:
		return len(k.public) == ed25519.PublicKeySize && ed25519.Verify(k.public, []byte(c.text), signature)
	case cosigEd25519, cosigMLDSA44:
		if len(signature) < 8 {
			return false
		}
		when := binary.BigEndian.Uint64(signature)
		if k.kind == cosigEd25519 {
			return ed25519.Verify(k.public, []byte(fmt.Sprintf("cosignature/v1\ntime %d\n%s", when, c.text)), signature[8:])
		}
		var public mldsa44.PublicKey
		if public.UnmarshalBinary(k.public) != nil {
			return false
		}
		return mldsa44.Verify(&public, cosignedMessage(k.name, when, c), nil, signature[8:])
	}
	return false
}

type witness struct {
	lock    sync.Mutex
	dir     string
	name    string
	logs    map[string][]key
	classic ed25519.PrivateKey
	quantum *mldsa44.PrivateKey
	public  *mldsa44.PublicKey
}

func newWitness(dir, name string) *witness {
	secret := sha256.Sum256([]byte("secret of " + name))
	w := &witness{dir: dir, name: name, logs: map[string][]key{}, classic: ed25519.NewKeyFromSeed(secret[:])}
	w.public, w.quantum = mldsa44.NewKeyFromSeed(&secret)
	return w
}

func (w *witness) keys() []key {
	quantum, _ := w.public.MarshalBinary()
	return []key{
		{w.name, cosigMLDSA44, quantum},
		{w.name, cosigEd25519, w.classic.Public().(ed25519.PublicKey)},
	}
}

func (w *witness) cosign(c checkpoint) []byte {
	when := uint64(time.Now().Unix())
	keys := w.keys()
	quantum := make([]byte, mldsa44.SignatureSize)
	if err := mldsa44.SignTo(w.quantum, cosignedMessage(w.name, when, c), nil, true, quantum); err != nil {
		panic(err)
	}
	classic := ed25519.Sign(w.classic, []byte(fmt.Sprintf("cosignature/v1\ntime %d\n%s", when, c.text)))
	var out bytes.Buffer
	for at, signature := range [][]byte{quantum, classic} {
		raw := binary.BigEndian.AppendUint64(bytes.Clone(keys[at].id()), when)
		fmt.Fprintf(&out, "— %s %s\n", w.name, base64.StdEncoding.EncodeToString(append(raw, signature...)))
	}
	return out.Bytes()
}

func (w *witness) path(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(w.dir, hex.EncodeToString(sum[:]))
}

func (w *witness) held(origin string) (checkpoint, error) {
	data, err := os.ReadFile(w.path(origin))
	if errors.Is(err, os.ErrNotExist) {
		return checkpoint{}, nil
	}
	if err != nil {
		return checkpoint{}, err
	}
	return parseCheckpoint(data)
}

func (w *witness) store(origin string, note []byte) error {
	file, err := os.CreateTemp(w.dir, "new-")
	if err != nil {
		return err
	}
	if _, err = file.Write(note); err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), w.path(origin))
}

type refusal struct {
	status int
	text   string
}

func (r refusal) Error() string { return r.text }

func parseRequest(body []byte) (old int64, proof []tlog.Hash, note []byte, err error) {
	head, note, found := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	number, hasOld := strings.CutPrefix(lines[0], "old ")
	if !found || !hasOld || len(lines) > 64 {
		return 0, nil, nil, errors.New("malformed")
	}
	if old, err = strconv.ParseInt(number, 10, 64); err != nil || old < 0 || strconv.FormatInt(old, 10) != number {
		return 0, nil, nil, errors.New("the old size is malformed")
	}
	for _, line := range lines[1:] {
		data, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(data) != 32 {
			return 0, nil, nil, errors.New("a hash is malformed")
		}
		proof = append(proof, tlog.Hash(data))
	}
	return old, proof, note, nil
}

// authenticate wants a signature by a key of the log that verifies, and none that does not.
func (w *witness) authenticate(c checkpoint) error {
	keys, known := w.logs[c.origin]
	if !known {
		return refusal{http.StatusNotFound, "unknown log"}
	}
	verified := false
	for _, line := range c.lines {
		fields := strings.Split(line, " ")
		if len(fields) != 3 || fields[0] != "—" {
			return refusal{http.StatusBadRequest, "malformed signature line"}
		}
		data, err := base64.StdEncoding.DecodeString(fields[2])
		if err != nil || len(data) < 5 {
			return refusal{http.StatusBadRequest, "malformed signature"}
		}
		for _, k := range keys {
			if k.name != fields[1] || !bytes.Equal(k.id(), data[:4]) {
				continue
			}
			if !k.verify(c, data[4:]) {
				return refusal{http.StatusForbidden, "a signature does not verify"}
			}
			verified = true
		}
	}
	if !verified {
		return refusal{http.StatusForbidden, "not signed by the log"}
	}
	return nil
}

func (w *witness) add(body []byte) ([]byte, error) {
	old, proof, note, err := parseRequest(body)
	if err != nil {
		return nil, refusal{http.StatusBadRequest, err.Error()}
	}
	c, err := parseCheckpoint(note)
	if err != nil {
		return nil, refusal{http.StatusBadRequest, err.Error()}
	}
	if err := w.authenticate(c); err != nil {
		return nil, err
	}
	if old > c.size {
		return nil, refusal{http.StatusBadRequest, "the old size is above the new one"}
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	held, err := w.held(c.origin)
	if err != nil {
		return nil, err
	}
	if old != held.size {
		return nil, refusal{http.StatusConflict, strconv.FormatInt(held.size, 10) + "\n"}
	}
	empty := sha256.Sum256(nil)
	switch {
	case c.size == 0 && c.root != tlog.Hash(empty):
		return nil, refusal{http.StatusUnprocessableEntity, "not the empty root"}
	case old == 0 && len(proof) > 0:
		return nil, refusal{http.StatusUnprocessableEntity, "a proof from nothing"}
	case old == 0:
	case old == c.size && (len(proof) > 0 || held.root != c.root):
		return nil, refusal{http.StatusUnprocessableEntity, "another root of that size"}
	case old < c.size:
		if err := tlog.CheckTree(proof, c.size, c.root, old, held.root); err != nil {
			return nil, refusal{http.StatusUnprocessableEntity, err.Error()}
		}
	}
	lines := w.cosign(c)
	if err := w.store(c.origin, append(bytes.Clone(note), lines...)); err != nil {
		return nil, err
	}
	return lines, nil
}

func (w *witness) ServeHTTP(out http.ResponseWriter, request *http.Request) {
	switch {
	case request.Method == "POST" && request.URL.Path == "/add-checkpoint":
		body, err := io.ReadAll(http.MaxBytesReader(out, request.Body, 1<<17))
		if err != nil {
			http.Error(out, "too long", http.StatusRequestEntityTooLarge)
			return
		}
		lines, err := w.add(body)
		var refused refusal
		switch {
		case errors.As(err, &refused) && refused.status == http.StatusConflict:
			out.Header().Set("Content-Type", "text/x.tlog.size")
			out.WriteHeader(refused.status)
			io.WriteString(out, refused.text)
		case errors.As(err, &refused):
			http.Error(out, refused.text, refused.status)
		case err != nil:
			http.Error(out, "failed", http.StatusInternalServerError)
		default:
			out.Write(lines)
		}
	case request.Method == "GET" && strings.HasSuffix(request.URL.Path, "/checkpoint"):
		name := strings.TrimSuffix(strings.TrimPrefix(request.URL.Path, "/"), "/checkpoint")
		if len(name) != 64 || strings.ContainsAny(name, "/.") {
			http.NotFound(out, request)
			return
		}
		data, err := os.ReadFile(filepath.Join(w.dir, name))
		if err != nil {
			http.NotFound(out, request)
			return
		}
		out.Write(data)
	default:
		http.NotFound(out, request)
	}
}

func main() {
	dir := flag.String("dir", "", "state")
	name := flag.String("name", "", "name of the witness")
	listen := flag.String("listen", "127.0.0.1:0", "address")
	var logs []string
	flag.Func("log", "vkey of a log", func(text string) error { logs = append(logs, text); return nil })
	flag.Parse()
	w := newWitness(*dir, *name)
	for _, text := range logs {
		k, err := parseVkey(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		w.logs[k.name] = append(w.logs[k.name], k)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for _, k := range w.keys() {
		fmt.Println(k.vkey())
	}
	fmt.Println(listener.Addr())
	fmt.Fprintln(os.Stderr, http.Serve(listener, w))
}
