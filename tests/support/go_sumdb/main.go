// Command go_sumdb reads an exported log with golang.org/x/mod/sumdb and nothing of ours: it shows that a third party's
// verifier accepts our checkpoints, tiles, entry bundles, proofs and receipts.
//
// Usage: go_sumdb DIR, or go_sumdb URL DIR. DIR holds the log as C2SP tlog-tiles names it, plus "claims.json"; with URL the log
// is read from there by HTTPS, and DIR has "claims.json", "ca.pem", "cert.pem" and "key.pem". Prints what it checked as one line
// of JSON; exits 1 with the first thing that does not hold.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

type inclusion struct {
	Index int64    `json:"index"`
	Size  int64    `json:"size"`
	Proof [][]byte `json:"proof"`
}

type consistency struct {
	Old     int64    `json:"old"`
	New     int64    `json:"new"`
	OldRoot []byte   `json:"old_root"`
	NewRoot []byte   `json:"new_root"`
	Proof   [][]byte `json:"proof"`
}

type claims struct {
	VerifierKey string        `json:"verifier_key"`
	Inclusion   []inclusion   `json:"inclusion"`
	Consistency []consistency `json:"consistency"`
	Receipts    []string      `json:"receipts"`
}

type checked struct {
	Size        int64  `json:"size"`
	Inclusion   int    `json:"inclusion"`
	Consistency int    `json:"consistency"`
	Entries     int    `json:"entries"`
	Tiles       int    `json:"tiles"`
	Receipts    int    `json:"receipts"`
	SignedByGo  string `json:"signed_by_go"`
	GoKey       string `json:"go_key"`
}

// files is where the log is read from: a directory, or a server of tlog-tiles.
type files func(path string) ([]byte, error)

func inDirectory(root string) files {
	return func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(root, path)) }
}

func overHTTPS(url, root string) (files, error) {
	authority, err := os.ReadFile(filepath.Join(root, "ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	own, err := tls.LoadX509KeyPair(filepath.Join(root, "cert.pem"), filepath.Join(root, "key.pem"))
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: pool, ServerName: "localhost", Certificates: []tls.Certificate{own},
	}}}
	return func(path string) ([]byte, error) {
		answer, err := client.Get(url + "/" + path)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s", path, answer.Status)
		}
		return io.ReadAll(answer.Body)
	}, nil
}

// directory reads tiles by the paths of C2SP tlog-tiles, which differ from those of the Go checksum database. Each is read once.
type directory struct {
	from files
	read map[string][]byte
}

func (d *directory) Height() int { return tileHeight }

func (d *directory) SaveTiles([]tlog.Tile, [][]byte) {}

func (d *directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range tiles {
		if tile.H != tileHeight {
			return nil, fmt.Errorf("tile of height %d", tile.H)
		}
		path := fmt.Sprintf("tile/%d/%s", tile.L, number(tile.N, tile.W))
		data, known := d.read[path]
		if !known {
			var err error
			if data, err = d.from(path); err != nil {
				return nil, err
			}
			d.read[path] = data
		}
		out = append(out, data)
	}
	return out, nil
}

func number(n int64, width int) string {
	text := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		text = fmt.Sprintf("x%03d/%s", n%1000, text)
	}
	if width != 1<<tileHeight {
		text += fmt.Sprintf(".p/%d", width)
	}
	return text
}

func hash(data []byte) (h tlog.Hash, err error) {
	if len(data) != tlog.HashSize {
		return h, errors.New("a hash has 32 bytes")
	}
	copy(h[:], data)
	return h, nil
}

func hashes(data [][]byte) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, one := range data {
		h, err := hash(one)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

// openCheckpoint verifies the note and reads its three lines.
func openCheckpoint(data []byte, verifier note.Verifier) (tlog.Tree, error) {
	var tree tlog.Tree
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() || lines[3] != "" {
		return tree, errors.New("the checkpoint has not origin, size and root")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil {
		return tree, err
	}
	tree.Hash, err = hash(root)
	return tree, err
}

// checkReceipt verifies a C2SP tlog-proof over an entry by hand: there is no such code in x/mod.
func checkReceipt(receipt string, entries [][]byte, verifier note.Verifier) error {
	head, checkpoint, found := strings.Cut(receipt, "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not a tlog-proof")
	}
	text, found := strings.CutPrefix(lines[1], "index ")
	if !found {
		return errors.New("no index")
	}
	index, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	var proof [][]byte
	for _, line := range lines[2:] {
		one, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return err
		}
		proof = append(proof, one)
	}
	record, err := hashes(proof)
	if err != nil {
		return err
	}
	tree, err := openCheckpoint([]byte(checkpoint), verifier)
	if err != nil {
		return err
	}
	if index < 0 || index >= int64(len(entries)) {
		return fmt.Errorf("the log does not reach to leaf %d of the receipt", index)
	}
	return tlog.CheckRecord(record, tree.N, tree.Hash, index, tlog.RecordHash(entries[index]))
}

func readEntries(from files, size int64) ([][]byte, error) {
	var entries [][]byte
	for first := int64(0); first < size; first += 1 << tileHeight {
		width := int(min(size-first, 1<<tileHeight))
		data, err := from("tile/entries/" + number(first>>tileHeight, width))
		if err != nil {
			return nil, err
		}
		for range width {
			if len(data) < 2 {
				return nil, errors.New("a bundle is cut off")
			}
			length := int(binary.BigEndian.Uint16(data))
			if len(data) < 2+length {
				return nil, errors.New("a bundle is cut off")
			}
			entries = append(entries, data[2:2+length])
			data = data[2+length:]
		}
		if len(data) > 0 {
			return nil, errors.New("a bundle has more than its width")
		}
	}
	return entries, nil
}

func run(from files, root string) (*checked, error) {
	var claim claims
	data, err := os.ReadFile(filepath.Join(root, "claims.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &claim); err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(claim.VerifierKey)
	if err != nil {
		return nil, fmt.Errorf("verifier key: %w", err)
	}
	data, err = from("checkpoint")
	if err != nil {
		return nil, err
	}
	tree, err := openCheckpoint(data, verifier)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	dir := &directory{from: from, read: map[string][]byte{}}
	// The reader authenticates every tile it uses against the root of the checkpoint.
	reader := tlog.TileHashReader(tree, dir)

	entries, err := readEntries(from, tree.N)
	if err != nil {
		return nil, fmt.Errorf("entries: %w", err)
	}
	for index, entry := range entries {
		found, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(index))})
		if err != nil {
			return nil, fmt.Errorf("leaf %d: %w", index, err)
		}
		if found[0] != tlog.RecordHash(entry) {
			return nil, fmt.Errorf("leaf %d is not the hash of its entry", index)
		}
	}

	roots := map[int64]tlog.Hash{tree.N: tree.Hash}
	rootOf := func(size int64) (tlog.Hash, error) {
		if known, ok := roots[size]; ok {
			return known, nil
		}
		made, err := tlog.TreeHash(size, reader)
		roots[size] = made
		return made, err
	}
	for _, one := range claim.Inclusion {
		proof, err := hashes(one.Proof)
		if err != nil {
			return nil, err
		}
		top, err := rootOf(one.Size)
		if err != nil {
			return nil, err
		}
		if one.Index >= int64(len(entries)) {
			return nil, fmt.Errorf("the log does not reach to leaf %d", one.Index)
		}
		if err := tlog.CheckRecord(proof, one.Size, top, one.Index, tlog.RecordHash(entries[one.Index])); err != nil {
			return nil, fmt.Errorf("inclusion of %d in %d: %w", one.Index, one.Size, err)
		}
		own, err := tlog.ProveRecord(one.Size, one.Index, reader)
		if err != nil {
			return nil, err
		}
		if fmt.Sprint(own) != fmt.Sprint(tlog.RecordProof(proof)) {
			return nil, fmt.Errorf("inclusion of %d in %d is proven otherwise", one.Index, one.Size)
		}
	}
	for _, one := range claim.Consistency {
		proof, err := hashes(one.Proof)
		if err != nil {
			return nil, err
		}
		oldRoot, err := rootOf(one.Old)
		if err != nil {
			return nil, err
		}
		newRoot, err := rootOf(one.New)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(oldRoot[:], one.OldRoot) || !bytes.Equal(newRoot[:], one.NewRoot) {
			return nil, fmt.Errorf("roots of %d and %d differ", one.Old, one.New)
		}
		if err := tlog.CheckTree(proof, one.New, newRoot, one.Old, oldRoot); err != nil {
			return nil, fmt.Errorf("consistency of %d and %d: %w", one.Old, one.New, err)
		}
	}
	for _, receipt := range claim.Receipts {
		if err := checkReceipt(receipt, entries, verifier); err != nil {
			return nil, fmt.Errorf("receipt: %w", err)
		}
	}

	secret, public, err := note.GenerateKey(rand.Reader, "go.capsign.test/witness")
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return nil, err
	}
	together, err := note.Sign(opened, signer)
	if err != nil {
		return nil, err
	}
	return &checked{
		Size:        tree.N,
		Inclusion:   len(claim.Inclusion),
		Consistency: len(claim.Consistency),
		Entries:     len(entries),
		Tiles:       len(dir.read),
		Receipts:    len(claim.Receipts),
		SignedByGo:  string(together),
		GoKey:       public,
	}, nil
}

func main() {
	var result *checked
	var err error
	switch len(os.Args) {
	case 2:
		result, err = run(inDirectory(os.Args[1]), os.Args[1])
	case 3:
		var from files
		if from, err = overHTTPS(os.Args[1], os.Args[2]); err == nil {
			result, err = run(from, os.Args[2])
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: go_sumdb [URL] DIR")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
