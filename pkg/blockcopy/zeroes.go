package blockcopy

import "bytes"

const (
	// skipBytes is the smallest chunk of a thin pool (lvmthin(7)): skipping less would save nothing.
	skipBytes = 64 << 10
	// zeroRunBytes is the least that a command of its own to write zeroes is worth; fewer go along with the data.
	zeroRunBytes = 1 << 20
)

// nextRun is the length of what is all zero, or all not, at the beginning of b, in grains.
func nextRun(b []byte, grain int) (n int, zero bool) {
	zero = isZero(b[:min(grain, len(b))])
	for n = grain; n < len(b); n += grain {
		if isZero(b[n:min(n+grain, len(b))]) != zero {
			return n, zero
		}
	}
	return len(b), zero
}

// isZero compares each byte with its neighbor. bytes.Equal is vectorized and ends at the first difference, and
// nothing else has to be in the processor's cache.
func isZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}
