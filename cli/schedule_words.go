package cli

import (
	"fmt"
	"strconv"
	"strings"
)

// scheduleText puts a schedule into words, or returns "" if it is one of those that
// say more by themselves.
func scheduleText(expr string) string {
	expr = strings.TrimSpace(expr)
	if words, ok := map[string]string{
		"@reboot": "when the daemon starts", "@yearly": "on 1 January at 00:00", "@annually": "on 1 January at 00:00",
		"@monthly": "on day 1 of each month at 00:00", "@weekly": "on Sunday at 00:00", "@daily": "every day at 00:00",
		"@midnight": "every day at 00:00", "@hourly": "every hour, on the hour",
	}[strings.ToLower(expr)]; ok {
		return words
	}
	if rest, ok := strings.CutPrefix(expr, "@every "); ok {
		return "every " + strings.TrimSpace(rest)
	}
	f := strings.Fields(expr)
	second := "0"
	if len(f) == 6 {
		second, f = f[0], f[1:]
	}
	if len(f) != 5 {
		return ""
	}
	when, daily := clockWords(second, f[0], f[1])
	days, ok := dayWords(f[2], f[3], f[4])
	switch {
	case when == "" || !ok:
		return ""
	case days == "" && daily:
		return "every day " + when
	case days == "":
		return when
	case daily:
		return days + " " + when
	}
	return when + ", " + days
}

// clockWords says at what times of a day; daily that they are few, and not all
// through it.
func clockWords(second, minute, hour string) (words string, daily bool) {
	every := func(field, unit string) string {
		switch n, ok := strings.CutPrefix(field, "*/"); {
		case field == "*" || n == "1" && ok:
			return "every " + unit
		case ok && number10(n) > 0:
			return fmt.Sprintf("every %s %ss", n, unit)
		}
		return ""
	}
	if second != "0" {
		if text := every(second, "second"); text != "" && minute == "*" && hour == "*" {
			return text, false
		}
		return "", false
	}
	from, to, span := strings.Cut(hour, "-")
	within := ""
	if span && number10(from) >= 0 && number10(to) >= 0 {
		within = fmt.Sprintf(" from %02d:00 to %02d:59", number10(from), number10(to))
	}
	if text := every(minute, "minute"); text != "" {
		switch {
		case hour == "*" || within != "":
			return text + within, false
		case number10(hour) >= 0:
			return fmt.Sprintf("%s from %02d:00 to %02d:59", text, number10(hour), number10(hour)), false
		}
		return "", false
	}
	minutes := numbers(minute)
	if minutes == nil {
		return "", false
	}
	if hour == "*" || within != "" || strings.HasPrefix(hour, "*/") {
		text := every(hour, "hour")
		if within != "" {
			text = "every hour" + within
		}
		if text == "" {
			return "", false
		}
		if minute == "0" {
			return text + ", on the hour", false
		}
		return fmt.Sprintf("%s, at minute %s", text, listed(minutes, "%d")), false
	}
	hours := numbers(hour)
	if hours == nil || len(hours)*len(minutes) > 6 {
		return "", false
	}
	var times []string
	for _, h := range hours {
		for _, m := range minutes {
			times = append(times, fmt.Sprintf("%02d:%02d", h, m))
		}
	}
	return "at " + and(times), true
}

// dayWords says on what days, "" being all.
func dayWords(day, month, weekday string) (words string, ok bool) {
	if weekday == "?" {
		weekday = "*"
	}
	if day == "?" {
		day = "*"
	}
	var parts []string
	switch {
	case day == "*" && weekday == "*":
		if month == "*" {
			return "", true
		}
		parts = append(parts, "every day")
	case day == "*":
		names := []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
		text := named(weekday, names)
		if text == "" {
			return "", false
		}
		parts = append(parts, "on "+text)
	case weekday == "*" && strings.EqualFold(day, "L"):
		parts = append(parts, "on the last day")
	case weekday == "*":
		days := numbers(day)
		if days == nil {
			return "", false
		}
		parts = append(parts, "on day "+listed(days, "%d"))
	default:
		return "", false
	}
	switch {
	case month == "*" && day != "*":
		parts = append(parts, "of each month")
	case month != "*":
		names := []string{"", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"}
		text := named(month, names)
		if text == "" {
			return "", false
		}
		parts = append(parts, "in "+text)
	}
	return strings.Join(parts, " "), true
}

// named is a list of numbers or spans, by their names.
func named(field string, names []string) string {
	at := func(text string) int {
		if n := number10(text); n >= 0 {
			return n
		}
		for i, name := range names {
			if name != "" && len(text) == 3 && strings.EqualFold(text, name[:3]) {
				return i
			}
		}
		return -1
	}
	var all []string
	for part := range strings.SplitSeq(field, ",") {
		from, to, span := strings.Cut(part, "-")
		a, b := at(from), at(from)
		if span {
			b = at(to)
		}
		if a < 0 || b < 0 || a >= len(names) || b >= len(names) || names[a] == "" {
			return ""
		}
		if span {
			all = append(all, names[a]+" to "+names[b])
		} else {
			all = append(all, names[a])
		}
	}
	return and(all)
}

// numbers reads a list of numbers, or returns nil.
func numbers(field string) []int {
	var all []int
	for part := range strings.SplitSeq(field, ",") {
		n := number10(part)
		if n < 0 {
			return nil
		}
		all = append(all, n)
	}
	return all
}

func number10(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || len(text) > 4 || text[0] == '+' {
		return -1
	}
	return n
}

func listed(all []int, format string) string {
	text := make([]string, len(all))
	for i, n := range all {
		text[i] = fmt.Sprintf(format, n)
	}
	return and(text)
}

// and joins words as a sentence does.
func and(all []string) string {
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:len(all)-1], ", ") + " and " + all[len(all)-1]
}
