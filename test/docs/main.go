// Command docs holds the documentation to account (make docs): links lead somewhere, and the shell commands that a page shows
// work, in their order, on the lab's machine. A block is marked by its info string: ```sh lab is run, ```sh cluster and others
// are not, and say why; ```text output after a block that is run is what it prints.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := pflag.NewFlagSet("docs", pflag.ContinueOnError)
	root := flags.String("root", ".", "the root of the repository")
	check := flags.Bool("check", false, "check the links, the marks and the names of all pages")
	list := flags.Bool("list", false, "print the pages that have commands to run")
	spans := flags.Bool("spans", false, "run the commands in the text of all pages that only look (lvs, vgs, pvs, dmsetup)")
	systemd := flags.Bool("systemd", false, "this machine has been booted by systemd: --list and run the pages that need that, and their other commands, too")
	listNotRun := flags.Bool("not-run", false, "print what is not run, and why")
	if err := flags.Parse(args); err != nil {
		return err
	}
	absolute, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	pages, err := readPages(absolute)
	if err != nil {
		return err
	}
	switch {
	case *check:
		return checkPages(absolute, pages)
	case *list:
		for _, name := range slices.Sorted(maps.Keys(pages)) {
			if slices.ContainsFunc(pages[name].blocks, func(b block) bool { return isRun(b, false) && !*systemd || isSystemd(b) && *systemd }) {
				fmt.Println(name)
			}
		}
		return nil
	case *spans:
		return runPage(ctx, absolute, spansPage(pages), false, os.Stdout)
	case *listNotRun:
		printNotRun(pages)
		return nil
	}
	for _, name := range flags.Args() {
		if pages[name] == nil {
			return fmt.Errorf("%s is no page", name)
		}
		if err := runPage(ctx, absolute, pages[name], *systemd, os.Stdout); err != nil {
			return err
		}
	}
	return nil
}

func checkPages(root string, pages map[string]*page) error {
	known, err := targets(root)
	if err != nil {
		return err
	}
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		wrong = append(wrong, checkLinks(root, pages, pages[name])...)
		wrong = append(wrong, checkBlocks(pages[name])...)
		wrong = append(wrong, checkNames(root, known, pages[name])...)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d things are wrong\n%s", len(wrong), strings.Join(wrong, "\n"))
	}
	return nil
}

// printNotRun says of every block that may be a shell's why it is not run.
func printNotRun(pages map[string]*page) {
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		for _, b := range pages[name].blocks {
			switch {
			case b.indented || len(b.info) == 0:
				fmt.Printf("%s:%d: not marked\n", name, b.line)
			case b.info[0] == language && !isRun(b, false):
				reason := "not marked"
				if len(b.info) > 1 {
					reason = notRun[b.info[1]]
				}
				fmt.Printf("%s:%d: %s\n", name, b.line, reason)
			}
		}
	}
}
