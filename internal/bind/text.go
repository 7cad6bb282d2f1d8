package bind

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// ParseDuration reads a duration as users write it: as [time.ParseDuration]
// does, and with days of 24 hours before the rest (90d, 1d12h, 1.5d). A bare
// number other than 0 is an error, since nobody can tell its unit; so is a
// negative duration.
func ParseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("write a duration such as 5s or 1h30m, not %s", showText(s))
	if s != "" && s != "0" && strings.Trim(s, "0123456789.") == "" {
		return 0, fmt.Errorf("write a duration with its unit, such as %[1]ss, %[1]sm or %[1]sh, not %[1]s", showText(s))
	}
	days, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		days, rest = "0", s
	}
	if strings.Trim(days, "0123456789.") != "" {
		return 0, wrong
	}
	n, err := strconv.ParseFloat(days, 64)
	if err != nil || n > float64(math.MaxInt64/day) {
		return 0, wrong
	}
	total := time.Duration(n * float64(day))
	if whole, err := strconv.ParseInt(days, 10, 64); err == nil {
		total = time.Duration(whole) * day // exact, which a float isn't for long spans
	}
	if hasDays && rest == "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.ContainsAny(rest, "+-") || d > math.MaxInt64-total {
		return 0, wrong
	}
	return total + d, nil
}

// FormatDuration writes a duration as [ParseDuration] reads it, and no longer
// than need be: 5s, 1h30m, 24h, 90d.
func FormatDuration(d time.Duration) string {
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// ParseMode reads permissions as chmod does: octal digits, with or without a
// leading 0 or 0o, up to 7777. The bits above 777 become [fs.ModeSetuid],
// [fs.ModeSetgid] and [fs.ModeSticky].
func ParseMode(s string) (fs.FileMode, error) {
	digits := strings.TrimPrefix(s, "0o")
	n, err := strconv.ParseUint(digits, 8, 16)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("write an octal mode such as 0644, not %s", showText(s))
	}
	mode := fs.FileMode(n) & fs.ModePerm
	for _, b := range specialBits() {
		if n&b.unix != 0 {
			mode |= b.mode
		}
	}
	return mode, nil
}

// FormatMode writes permissions as [ParseMode] reads them, in four digits, such
// as 0644. The type of the file is left out.
func FormatMode(mode fs.FileMode) string {
	n := uint64(mode.Perm())
	for _, b := range specialBits() {
		if mode&b.mode != 0 {
			n |= b.unix
		}
	}
	return fmt.Sprintf("%04o", n)
}

type specialBit struct {
	unix uint64
	mode fs.FileMode
}

func specialBits() [3]specialBit {
	return [3]specialBit{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}}
}

func parseBool(s string) (bool, error) {
	if low := strings.ToLower(s); s == low || s == strings.ToUpper(s) || s == strings.ToUpper(s[:1])+low[1:] {
		switch low {
		case "true", "yes", "on", "y":
			return true, nil
		case "false", "no", "off", "n":
			return false, nil
		}
	}
	return false, fmt.Errorf("write true or false, not %s", showText(s))
}

func parseInt(s string, bits int) (int64, error) {
	if err := ambiguousOctal(s); err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 0, bits)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("write a whole number from %d to %d, not %s", int64(-1)<<(bits-1), int64(1)<<(bits-1)-1, showText(s))
	}
	if err != nil {
		return 0, fmt.Errorf("write a whole number, not %s", showText(s))
	}
	return n, nil
}

func parseUint(s string, bits int) (uint64, error) {
	if err := ambiguousOctal(s); err != nil {
		return 0, err
	}
	if _, err := strconv.ParseInt(s, 0, 64); err == nil && s[0] == '-' {
		return 0, fmt.Errorf("write a whole number from 0, not %s", showText(s))
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "+"), 0, bits)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("write a whole number from 0 to %d, not %s", uint64(math.MaxUint64)>>(64-bits), showText(s))
	}
	if err != nil {
		return 0, fmt.Errorf("write a whole number, not %s", showText(s))
	}
	return n, nil
}

// ambiguousOctal refuses 010, which YAML 1.1 reads as eight and 1.2 as ten.
func ambiguousOctal(s string) error {
	digits := strings.TrimLeft(s, "+-")
	if len(digits) < 2 || digits[0] != '0' || strings.Trim(digits, "0123456789_") != "" {
		return nil
	}
	bare := strings.TrimLeft(digits, "0_")
	if bare == "" {
		bare = "0"
	}
	return fmt.Errorf("write %s, or 0o%s if it is octal, not %s", bare, bare, showText(s))
}

func parseFloat(s string, bits int) (float64, error) {
	f, err := strconv.ParseFloat(s, bits)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0, fmt.Errorf("write a number, not %s", showText(s))
	}
	return f, nil
}
