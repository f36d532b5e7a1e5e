// Package guess finds the word that somebody meant who wrote another one.
package guess

import "strings"

// Nearest returns the known word that begins with word, else the one that differs
// least from it, "" if none is near: in two letters, or one of three.
func Nearest(word string, known []string) string {
	if len(word) < 3 {
		return ""
	}
	best, least := "", min(len(word)-2, 2)+1
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

// distance is how many letters must be added, dropped or changed (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := above
			if a[i] != b[j] {
				cost = min(above, row[j], row[j+1]) + 1
			}
			above, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
