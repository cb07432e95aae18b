// Command ctldocs makes the documentation of lvmsnapctl from its commands: the page of the reference, man pages, and
// completions for shells.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
)

func main() {
	reference := flag.String("reference", "", "write the page of the reference to this `file`")
	dir := flag.String("dir", "", "write man pages and completions below this `directory`")
	flag.Parse()
	if err := run(*reference, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "ctldocs:", err)
		os.Exit(1)
	}
}

func run(reference, dir string) error {
	if reference != "" {
		var page bytes.Buffer
		if err := ctl.Reference(&page); err != nil {
			return err
		}
		if err := os.WriteFile(reference, page.Bytes(), 0o644); err != nil { //nolint:gosec // a page of the documentation
			return err
		}
	}
	if dir == "" {
		return nil
	}
	man := filepath.Join(dir, "man8")
	if err := os.MkdirAll(man, 0o755); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	root := ctl.Documented()
	// Their date is $SOURCE_DATE_EPOCH's, else today's.
	header := &doc.GenManHeader{Section: "8", Source: "lvmsnap", Manual: "LVM snapshots for CSI"}
	if err := doc.GenManTree(root, header, man); err != nil {
		return err
	}
	return completions(root, dir)
}

func completions(root *cobra.Command, dir string) error {
	return errors.Join(
		root.GenBashCompletionFileV2(filepath.Join(dir, "lvmsnapctl.bash"), true),
		root.GenZshCompletionFile(filepath.Join(dir, "_lvmsnapctl")),
		root.GenFishCompletionFile(filepath.Join(dir, "lvmsnapctl.fish"), true),
	)
}
