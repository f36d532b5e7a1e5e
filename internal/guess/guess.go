// Package guess finds the word that somebody meant who wrote another one.
package guess

import "strings"

// Nearest returns the known word that begins with word, else the one that differs
// least from it, "" if none is near: in two letters, or one where there are few.
func Nearest(word string, known []string) string {
	if len(word) < 3 {
		return ""
	}
	best, least := "", min((len(word)-1)/2, 2)+1
	for _, k := range known {
		if strings.HasPrefix(k, word) {
			return k
		}
		if d := distance(word, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is how many letters must be added, dropped, changed, or swapped with
// their neighbours (Levenshtein, Damerau).
func distance(a, b string) int {
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, above, row = above, row, before
		row[0] = i + 1
		for j := range len(b) {
			same := above[j]
			if a[i] != b[j] {
				same++
			}
			row[j+1] = min(same, above[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
