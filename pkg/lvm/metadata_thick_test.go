package lvm

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A group of four disks with thick volumes of every layout, COW snapshots, a thin pool and a disk that is not
// allocatable, recorded by TestThickMetadata with what lvs and vgs said of it.
func TestParseThickMetadata(t *testing.T) {
	text, err := os.ReadFile("testdata/vgcfgbackup.thick.txt")
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMetadata(text)
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile("testdata/vgcfgbackup.thick.lvs")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	if got := strconv.FormatInt(m.FreeBytes, 10); got != lines[0] || len(m.PVs) != 4 || m.SizeBytes <= m.FreeBytes {
		t.Errorf("%s of %d bytes are free, vgs said %s", got, m.SizeBytes, lines[0])
	}
	attrs := map[string]Attr{}
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		attrs[f[0]] = Attr(f[1])
	}
	for _, lv := range m.LVs {
		want := attrs[lv.Name]
		if a := lv.Attr; a.Type() != want.Type() || a.Writable() != want.Writable() || a.SkipActivation() != want.SkipActivation() {
			t.Errorf("%s: attr %q, lvs said %q", lv.Name, a, want)
		}
		delete(attrs, lv.Name)
	}
	if len(attrs) > 0 {
		t.Errorf("lvs listed more: %v", attrs)
	}
}

func TestExtentErrors(t *testing.T) {
	text := string(recordedMetadata(t))
	for name, replacement := range map[string]string{"too few": "pe_count = 1", "negative": "pe_count = -1", "too many": "pe_count = 4294967296"} {
		if m, err := ParseMetadata([]byte(regexp.MustCompile(`pe_count = \d+`).ReplaceAllString(text, replacement))); err == nil {
			t.Errorf("%s: %d bytes free", name, m.FreeBytes)
		}
	}
}

// readerOf has metadata, or an error.
type readerOf struct {
	m   Metadata
	err error
}

func (r readerOf) Metadata(string) (Metadata, error)     { return r.m, r.err }
func (r readerOf) Locate(context.Context, *Client) error { return r.err }

// vgsExec answers every question with one group.
type vgsExec struct{}

func (vgsExec) Run(context.Context, ...string) (Output, error) {
	doc, err := ParseDocument([]byte(`{"report": [{"vg": [{"vg_name":"vg0", "vg_free":"4096", "vg_extent_size":"4194304"}]}]}`))
	return Output{Document: doc}, err
}

func TestViewWithoutDisks(t *testing.T) {
	for _, c := range []struct {
		reader MetadataReader
		want   int64
	}{
		{readerOf{m: Metadata{FreeBytes: 512}}, 512},
		{readerOf{err: errors.New("no disk")}, 4096},
		{nil, 4096},
	} {
		client := &Client{exec: vgsExec{}, group: "vg0"}
		if c.reader != nil {
			client.reader = newBoundedReader(c.reader)
		}
		if m, err := client.View(t.Context()); err != nil || m.FreeBytes != c.want {
			t.Errorf("%+v: %d, %v, want %d", c.reader, m.FreeBytes, err, c.want)
		}
	}
}
