package bind

import (
	"iter"
	"strings"
)

// Nearest returns the candidate that a user most likely meant by word, or "" if
// none is near enough to suggest: a misspelling in about one letter of three at
// most, swapped neighbours counting once and case not at all, or a beginning of
// at least three letters. The order of the candidates makes no difference.
func Nearest(word string, candidates iter.Seq[string]) string {
	w := []rune(strings.ToLower(word))
	if len(w) < 2 || len(w) > 64 {
		return ""
	}
	limit := min(3, max(1, len(w)/3))
	best, bestDistance := "", limit+2
	for c := range candidates {
		low := strings.ToLower(c)
		distance := limit + 1
		if d := len([]rune(low)) - len(w); -limit <= d && d <= limit {
			distance = editDistance(w, []rune(low))
		}
		if distance > limit {
			if len(w) < 3 || !strings.HasPrefix(low, string(w)) {
				continue
			}
			distance = limit + 1
		}
		if distance < bestDistance || distance == bestDistance && c < best {
			best, bestDistance = c, distance
		}
	}
	return best
}

// editDistance counts the letters to insert, remove, replace, or swap with
// their neighbours, to make b of a.
func editDistance(a, b []rune) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range a {
		row[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
