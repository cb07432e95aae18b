package driver

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// CSI spec, "Size Limits": they hold for every field of every message whose description says nothing else.
const (
	maxString = 128
	maxMap    = 4 << 10
	maxNodeID = 256
)

// checkLimits applies the general rules to a message, however deep its fields lie. It names a field that breaks
// one, but never repeats its content, which may be secret as well as long.
func checkLimits(m proto.Message) error { return checkMessage("", m.ProtoReflect()) }

func checkMessage(path string, m protoreflect.Message) (err error) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		field := path + string(fd.Name())
		switch {
		case fd.IsMap():
			err = checkMap(field, v.Map())
		case fd.IsList():
			err = checkList(field, fd, v.List())
		case fd.Kind() == protoreflect.MessageKind:
			err = checkMessage(field+".", v.Message())
		case fd.Kind() == protoreflect.StringKind:
			err = checkString(field, fd, v.String())
		}
		return err == nil
	})
	return err
}

func checkMap(field string, m protoreflect.Map) error {
	size := 0
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		size += len(k.String()) + len(v.String())
		return true
	})
	return checkSize(field, size, maxMap)
}

func checkList(field string, fd protoreflect.FieldDescriptor, l protoreflect.List) error {
	size := 0
	for i := range l.Len() {
		var err error
		switch {
		case fd.Kind() == protoreflect.MessageKind:
			err = checkMessage(fmt.Sprintf("%s[%d].", field, i), l.Get(i).Message())
		case fd.FullName() == mountFlagsField:
			// "The total size of this repeated field SHALL NOT exceed 4 KiB."
			size += len(l.Get(i).String())
			err = checkSize(field, size, maxMap)
		case fd.Kind() == protoreflect.StringKind:
			err = checkString(fmt.Sprintf("%s[%d]", field, i), fd, l.Get(i).String())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkString(field string, fd protoreflect.FieldDescriptor, s string) error {
	switch name := string(fd.Name()); {
	case strings.HasSuffix(name, "_path"):
		return nil // as long as the operating system allows
	case name == "node_id":
		return checkSize(field, len(s), maxNodeID)
	case name == "name" && strings.ContainsFunc(s, bannedInNames):
		return fmt.Errorf("%w: %s contains a control character", storage.ErrInvalid, field)
	}
	return checkSize(field, len(s), maxString)
}

func checkSize(field string, size, limit int) error {
	if size > limit {
		return fmt.Errorf("%w: %s has %d bytes, and at most %d are allowed", storage.ErrInvalid, field, size, limit)
	}
	return nil
}

// bannedInNames is the spec's list (CreateVolumeRequest.name): control characters other than commonly used
// whitespace.
func bannedInNames(r rune) bool {
	switch r {
	case '\t', '\n', '\r':
		return false
	default:
		return r < 0x20 || r >= 0x7f && r <= 0x9f
	}
}

// clip shortens a text for people to what a field may hold, for the limits bind our answers too.
func clip(s string) string {
	const more = "..."
	if len(s) <= maxString {
		return s
	}
	cut := maxString - len(more)
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + more
}
