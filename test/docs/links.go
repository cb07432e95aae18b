package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// builtDirectories have nothing that a reader of the repository sees.
var builtDirectories = []string{".git", "bin", "_output", "node_modules"}

// readPages reads every Markdown file of the repository.
func readPages(root string) (map[string]*page, error) {
	pages := map[string]*page{}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		if entry.IsDir() && slices.Contains(builtDirectories, relative) {
			return filepath.SkipDir
		}
		if entry.IsDir() || path.Ext(relative) != ".md" {
			return nil
		}
		pages[relative], err = readPage(root, relative)
		return err
	})
	return pages, err
}

// checkLinks says what is wrong with the links of a page. Nothing is fetched: of addresses only the form is looked at.
func checkLinks(root string, pages map[string]*page, p *page) []string {
	var wrong []string
	for _, l := range p.links {
		if err := checkLink(root, pages, p, l.destination); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s:%d: %s: %v", p.path, l.line, l.destination, err))
		}
	}
	return wrong
}

func checkLink(root string, pages map[string]*page, p *page, destination string) error {
	u, err := url.Parse(destination)
	switch {
	case err != nil:
		return err
	case u.Scheme == "mailto":
		return nil
	case u.Scheme != "":
		return checkAddress(u)
	case u.Host != "" || strings.HasPrefix(u.Path, "/"):
		return errors.New("is neither an address nor relative")
	}
	target := p.path
	if u.Path != "" {
		target = path.Join(path.Dir(p.path), u.Path)
	}
	if target == ".." || strings.HasPrefix(target, "../") {
		return errors.New("leaves the repository")
	}
	first, _, _ := strings.Cut(target, "/")
	if slices.Contains(builtDirectories, first) {
		return errors.New("is built, and not in the repository")
	}
	info, err := os.Stat(filepath.Join(root, filepath.FromSlash(target)))
	switch {
	case err != nil:
		return errors.New("no such file")
	case u.Fragment == "":
		return nil
	case info.IsDir() || pages[target] == nil:
		return errors.New("an anchor in what is no page")
	case !pages[target].anchors[u.Fragment]:
		return fmt.Errorf("%s has no heading #%s", target, u.Fragment)
	}
	return nil
}

func checkAddress(u *url.URL) error {
	if u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("the scheme %q is not one of the web", u.Scheme)
	}
	host := u.Hostname()
	if host == "" || strings.ContainsAny(host, " ,;()") || (!strings.Contains(host, ".") && host != "localhost") {
		return fmt.Errorf("%q is no host", host)
	}
	return nil
}
