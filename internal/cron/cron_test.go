package cron

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Every mistake says what it is, where, and what to write instead.
func TestRefusals(t *testing.T) {
	tests := []struct{ expr, want string }{
		{"",
			`the schedule is empty; write five fields (minute hour day month weekday), such as "30 2 * * *", or a name such as @daily`},
		{"  \t",
			`the schedule is empty; write five fields (minute hour day month weekday), such as "30 2 * * *", or a name such as @daily`},
		{"* * *",
			`schedule "* * *": 3 fields; write five fields (minute hour day month weekday), six with seconds first, or seven with a year last`},
		{"* * * *",
			`schedule "* * * *": 4 fields; write five fields (minute hour day month weekday), six with seconds first, or seven with a year last`},
		{"* * * * * * * *",
			`schedule "* * * * * * * *": 8 fields; write five fields (minute hour day month weekday), six with seconds first, or seven with a year last`},
		{"daily",
			`schedule "daily": write @daily`},
		{"tomorrow",
			`schedule "tomorrow": 1 field; write five fields (minute hour day month weekday), six with seconds first, or seven with a year last`},
		{"TZ=UTC 0 2 * * *",
			`schedule "TZ=UTC 0 2 * * *": a zone does not belong in the schedule; remove "TZ=UTC" and give the job a timezone`},
		{"CRON_TZ=Europe/Berlin 0 2 * * *",
			`schedule "CRON_TZ=Europe/Berlin 0 2 * * *": a zone does not belong in the schedule; remove "CRON_TZ=Europe/Berlin" and give the job a timezone`},
		{"60 * * * *",
			`schedule "60 * * * *": minute "60" is out of range; write a number from 0 to 59 (60 is 0 of the next hour)`},
		{"0 24 * * *",
			`schedule "0 24 * * *": hour "24" is out of range; write a number from 0 to 23 (24 is 0 of the next day)`},
		{"60 * * * * *",
			`schedule "60 * * * * *": second "60" is out of range; write a number from 0 to 59 (60 is 0 of the next minute)`},
		{"75 * * * *",
			`schedule "75 * * * *": minute "75" is out of range; write a number from 0 to 59`},
		{"-5 * * * *",
			`schedule "-5 * * * *": minute "-5": a range is two values and one dash, such as 1-5`},
		{"0 0 0 * *",
			`schedule "0 0 0 * *": day "0" is out of range; write a number from 1 to 31`},
		{"0 0 32 * *",
			`schedule "0 0 32 * *": day "32" is out of range; write a number from 1 to 31`},
		{"0 0 * 0 *",
			`schedule "0 0 * 0 *": month "0" is out of range; write a number from 1 to 12 or a name from JAN to DEC`},
		{"0 0 * 13 *",
			`schedule "0 0 * 13 *": month "13" is out of range; write a number from 1 to 12 or a name from JAN to DEC`},
		{"0 0 * * 8",
			`schedule "0 0 * * 8": weekday "8" is out of range; write a number from 0 to 7 or a name from SUN to SAT (0 and 7 are Sunday)`},
		{"0-59,99 * * * *",
			`schedule "0-59,99 * * * *": minute "99" is out of range; write a number from 0 to 59`},
		{"*,99 * * * *",
			`schedule "*,99 * * * *": minute "99" is out of range; write a number from 0 to 59`},
		{"0-59,abc * * * *",
			`schedule "0-59,abc * * * *": minute "abc" is not a value of the field; write a number from 0 to 59`},
		{"90/5 * * * *",
			`schedule "90/5 * * * *": minute "90/5": 90 is out of range; write a number from 0 to 59`},
		{"* 30/2 * * *",
			`schedule "* 30/2 * * *": hour "30/2": 30 is out of range; write a number from 0 to 23`},
		{"0 0 0/5 * *",
			`schedule "0 0 0/5 * *": day "0/5": 0 is out of range; write a number from 1 to 31`},
		{"+5 * * * *",
			`schedule "+5 * * * *": minute "+5" is not a value of the field; write a number from 0 to 59`},
		{"12345 * * * *",
			`schedule "12345 * * * *": minute "12345" is out of range; write a number from 0 to 59`},
		{"0 22-2 * * *",
			`schedule "0 22-2 * * *": hour "22-2": the range runs backwards; write 22-23,0-2`},
		{"0 22-2/3 * * *",
			`schedule "0 22-2/3 * * *": hour "22-2/3": the range runs backwards; write 22,1`},
		{"0 22-1/5 * * *",
			`schedule "0 22-1/5 * * *": hour "22-1/5": the range runs backwards; write 22`},
		{"0 0 25-5 * *",
			`schedule "0 0 25-5 * *": day "25-5": the range runs backwards; write 25-31,1-5`},
		{"0 0 * * FRI-MON",
			`schedule "0 0 * * FRI-MON": weekday "FRI-MON": the range runs backwards; write FRI-SUN,MON`},
		{"0 0 * * fri-tue/2",
			`schedule "0 0 * * fri-tue/2": weekday "fri-tue/2": the range runs backwards; write FRI-SUN/2,TUE`},
		{"0 0 * * 5-1",
			`schedule "0 0 * * 5-1": weekday "5-1": the range runs backwards; write 5-7,1`},
		{"0 0 * * 5-0",
			`schedule "0 0 * * 5-0": weekday "5-0": the range runs backwards; write 5-7`},
		{"0 0 * * 7-2",
			`schedule "0 0 * * 7-2": weekday "7-2": the range runs backwards; write 0-2`},
		{"0 0 * * SAT-1",
			`schedule "0 0 * * SAT-1": weekday "SAT-1": the range runs backwards; write SAT-SUN,MON`},
		{"0 0 * DEC-FEB *",
			`schedule "0 0 * DEC-FEB *": month "DEC-FEB": the range runs backwards; write DEC,JAN-FEB`},
		{"0 0 * 11-2 *",
			`schedule "0 0 * 11-2 *": month "11-2": the range runs backwards; write 11-12,1-2`},
		{"50-10 * * * *",
			`schedule "50-10 * * * *": minute "50-10": the range runs backwards; write 50-59,0-10`},
		{"0 0 0 1 1 * 2030-2026",
			`schedule "0 0 0 1 1 * 2030-2026": year "2030-2026": the range runs backwards; write 2026-2030`},
		{"MON * * * *",
			`schedule "MON * * * *": minute "MON" is a weekday; write a number from 0 to 59`},
		{"0 0 JUL * *",
			`schedule "0 0 JUL * *": day "JUL" is a month; write a number from 1 to 31`},
		{"0 0 * * JAN",
			`schedule "0 0 * * JAN": weekday "JAN" is a month; write a number from 0 to 7 or a name from SUN to SAT`},
		{"0 0 * MON *",
			`schedule "0 0 * MON *": month "MON" is a weekday; write a number from 1 to 12 or a name from JAN to DEC`},
		{"0 0 * JANFEB *",
			`schedule "0 0 * JANFEB *": month "JANFEB" is not a value of the field; write a number from 1 to 12 or a name from JAN to DEC`},
		{"0 0 * 1FEB *",
			`schedule "0 0 * 1FEB *": month "1FEB" is not a value of the field; write a number from 1 to 12 or a name from JAN to DEC`},
		{"0 0 * SEPT *",
			`schedule "0 0 * SEPT *": month "SEPT": names have three letters; write SEP`},
		{"0 0 * * MONDAY",
			`schedule "0 0 * * MONDAY": weekday "MONDAY": names have three letters; write MON`},
		{"0 0 * * tues-thurs",
			`schedule "0 0 * * tues-thurs": weekday "tues-thurs": names have three letters; write TUE`},
		{"0 JAN * * *",
			`schedule "0 JAN * * *": hour "JAN" is a month; write a number from 0 to 23`},
		{"0 0 * * 5#6",
			`schedule "0 0 * * 5#6": weekday "5#6": after "#" stands which one of the month it is, from 1 to 5; write for instance 5#2, or 5L for the last`},
		{"0 0 * * 5#0",
			`schedule "0 0 * * 5#0": weekday "5#0": after "#" stands which one of the month it is, from 1 to 5; write for instance 5#2, or 5L for the last`},
		{"0 0 * * 9#1",
			`schedule "0 0 * * 9#1": weekday "9#1": 9 is out of range; write a number from 0 to 7 or a name from SUN to SAT (0 and 7 are Sunday)`},
		{"0 0 * * 17#1",
			`schedule "0 0 * * 17#1": weekday "17#1": 17 is out of range; write a number from 0 to 7 or a name from SUN to SAT (0 and 7 are Sunday)`},
		{"0 0 * * 99L",
			`schedule "0 0 * * 99L": weekday "99L": 99 is out of range; write a number from 0 to 7 or a name from SUN to SAT (0 and 7 are Sunday)`},
		{"0 0 * * L",
			`schedule "0 0 * * L": weekday "L": L alone is for the day field; write 5L for the last Friday of the month`},
		{"0 0 * * 5Lgarbage",
			`schedule "0 0 * * 5Lgarbage": weekday "5Lgarbage" is not a value of the field; write a number from 0 to 7 or a name from SUN to SAT`},
		{"0 0 * * 1#2#3",
			`schedule "0 0 * * 1#2#3": weekday "1#2#3": after "#" stands which one of the month it is, from 1 to 5; write for instance 1#2, or 1L for the last`},
		{"0 0 * * 5#",
			`schedule "0 0 * * 5#": weekday "5#": after "#" stands which one of the month it is, from 1 to 5; write for instance 5#2, or 5L for the last`},
		{"0 0 * * #2",
			`schedule "0 0 * * #2": weekday "#2": nothing stands before "#"; write for instance 5#2 for the second Friday of the month`},
		{"0 0 32W * *",
			`schedule "0 0 32W * *": day "32W": 32 is out of range; write a number from 1 to 31`},
		{"0 0 -3W * *",
			`schedule "0 0 -3W * *": day "-3W" is not one of the forms with L and W; write L for the last day of the month, LW for its last weekday, L-3 for three days before the last, or 15W for the weekday nearest to the 15th`},
		{"0 0 15Wxyz * *",
			`schedule "0 0 15Wxyz * *": day "15Wxyz" is not a value of the field; write a number from 1 to 31`},
		{"0 0 W * *",
			`schedule "0 0 W * *": day "W" is not one of the forms with L and W; write L for the last day of the month, LW for its last weekday, L-3 for three days before the last, or 15W for the weekday nearest to the 15th`},
		{"0 0 0W * *",
			`schedule "0 0 0W * *": day "0W": 0 is out of range; write a number from 1 to 31`},
		{"0 0 L-0 * *",
			`schedule "0 0 L-0 * *": day "L-0": after L- stands how many days before the last it is, from 1 to 30; write for instance L-3`},
		{"0 0 L-31 * *",
			`schedule "0 0 L-31 * *": day "L-31": after L- stands how many days before the last it is, from 1 to 30; write for instance L-3`},
		{"0 0 L-3W * *",
			`schedule "0 0 L-3W * *": day "L-3W": after L- stands how many days before the last it is, from 1 to 30; write for instance L-3`},
		{"0 0 1-L * *",
			`schedule "0 0 1-L * *": day "1-L" is not one of the forms with L and W; write L for the last day of the month, LW for its last weekday, L-3 for three days before the last, or 15W for the weekday nearest to the 15th`},
		{"L * * * *",
			`schedule "L * * * *": minute "L": L, W and # are for the day (L, LW, L-3, 15W) and weekday (5L, 5#2) fields only; write a number from 0 to 59`},
		{"0 15W * * *",
			`schedule "0 15W * * *": hour "15W": L, W and # are for the day (L, LW, L-3, 15W) and weekday (5L, 5#2) fields only; write a number from 0 to 23`},
		{"5#2 * * * *",
			`schedule "5#2 * * * *": minute "5#2": L, W and # are for the day (L, LW, L-3, 15W) and weekday (5L, 5#2) fields only; write a number from 0 to 59`},
		{"0 0 * 1L *",
			`schedule "0 0 * 1L *": month "1L": L, W and # are for the day (L, LW, L-3, 15W) and weekday (5L, 5#2) fields only; write a number from 1 to 12 or a name from JAN to DEC`},
		{"0 0 ? * MON",
			`schedule "0 0 ? * MON": day "?" is not taken; write *`},
		{"H * * * *",
			`schedule "H * * * *": minute "H" is not taken; write one time and spread the jobs with jitter`},
		{"H/15 * * * *",
			`schedule "H/15 * * * *": minute "H/15": "H" is not taken; write one time and spread the jobs with jitter`},
		{"0~30 * * * *",
			`schedule "0~30 * * * *": minute "0~30": random times are not taken; write one time and spread the jobs with jitter`},
		{"** * * * *",
			`schedule "** * * * *": minute "**": "*" stands alone or before a step, as in */5`},
		{"*5 * * * *",
			`schedule "*5 * * * *": minute "*5": "*" stands alone or before a step, as in */5`},
		{"5* * * * *",
			`schedule "5* * * * *": minute "5*": "*" stands alone or before a step, as in */5`},
		{"*-5 * * * *",
			`schedule "*-5 * * * *": minute "*-5": "*" stands alone or before a step, as in */5`},
		{"*/* * * * *",
			`schedule "*/* * * * *": minute "*/*": the step "*" is not a number; write one, such as */5`},
		{"5,,6 * * * *",
			`schedule "5,,6 * * * *": minute "5,,6": a member of the list is empty; remove the extra comma`},
		{",5 * * * *",
			`schedule ",5 * * * *": minute ",5": a member of the list is empty; remove the extra comma`},
		{"5, * * * *",
			`schedule "5, * * * *": minute "5,": a member of the list is empty; remove the extra comma`},
		{"5- * * * *",
			`schedule "5- * * * *": minute "5-": a range is two values and one dash, such as 1-5`},
		{"1-2-3 * * * *",
			`schedule "1-2-3 * * * *": minute "1-2-3": a range is two values and one dash, such as 1-5`},
		{"*/ * * * *",
			`schedule "*/ * * * *": minute "*/": the step after "/" is missing; write a number, such as */5`},
		{"/5 * * * *",
			`schedule "/5 * * * *": minute "/5": nothing stands before "/"; write */5`},
		{"*/2/3 * * * *",
			`schedule "*/2/3 * * * *": minute "*/2/3": a member has one step at most; write */5`},
		{"*/0 * * * *",
			`schedule "*/0 * * * *": minute "*/0": the step is 0; write a step of 1 or more, such as */5`},
		{"*/x * * * *",
			`schedule "*/x * * * *": minute "*/x": the step "x" is not a number; write one, such as */5`},
		{"*/-5 * * * *",
			`schedule "*/-5 * * * *": minute "*/-5": the step "-5" is not a number; write one, such as */5`},
		{"*/90 * * * *",
			`schedule "*/90 * * * *": minute "*/90": the step 90 is more than the 60 values of the field; for so long an interval write @every 90m`},
		{"0 */36 * * *",
			`schedule "0 */36 * * *": hour "*/36": the step 36 is more than the 24 values of the field; for so long an interval write @every 36h`},
		{"0 0 */40 * *",
			`schedule "0 0 */40 * *": day "*/40": the step 40 is more than the 31 values of the field; write a step from 1 to 31`},
		{"*/90 * * * * *",
			`schedule "*/90 * * * * *": second "*/90": the step 90 is more than the 60 values of the field; for so long an interval write @every 90s`},
		{"0 0 0 1 1 * */2",
			`schedule "0 0 0 1 1 * */2": year "*/2": it does not say which year to count from; write for instance 2026-2199/2`},
		{"0 0 0 1 1 * 1969",
			`schedule "0 0 0 1 1 * 1969": year "1969" is out of range; write a number from 1970 to 2199`},
		{"0 0 0 1 1 * 2200",
			`schedule "0 0 0 1 1 * 2200": year "2200" is out of range; write a number from 1970 to 2199`},
		{"0 0 0 1 1 * 20x6",
			`schedule "0 0 0 1 1 * 20x6": year "20x6" is not a value of the field; write a number from 1970 to 2199`},
		{"0 0 1 1 * 2030",
			`schedule "0 0 1 1 * 2030": weekday "2030" is out of range; write a number from 0 to 7 or a name from SUN to SAT (0 and 7 are Sunday); for the year 2030 write all seven fields, "0 0 0 1 1 * 2030"`},
		{"0 0 1 1 * 2030-2040",
			`schedule "0 0 1 1 * 2030-2040": weekday "2030-2040": 2030 is out of range; write a number from 0 to 7 or a name from SUN to SAT (0 and 7 are Sunday); for the year 2030-2040 write all seven fields, "0 0 0 1 1 * 2030-2040"`},
		{"99 25 * 13 9",
			`schedule "99 25 * 13 9": minute "99" is out of range; write a number from 0 to 59; hour "25" is out of range; write a number from 0 to 23; month "13" is out of range; write a number from 1 to 12 or a name from JAN to DEC; weekday "9" is out of range; write a number from 0 to 7 or a name from SUN to SAT (0 and 7 are Sunday)`},
		{"0 0 30 2 *",
			`schedule "0 0 30 2 *": never due: February has no day 30; for the last day of a month write L`},
		{"0 0 30,31 2 *",
			`schedule "0 0 30,31 2 *": never due: February has no day 30 or 31; for the last day of a month write L`},
		{"0 0 31 2,4,6,9,11 *",
			`schedule "0 0 31 2,4,6,9,11 *": never due: none of its months has a day 31; for the last day of a month write L`},
		{"0 0 31W 2 *",
			`schedule "0 0 31W 2 *": never due: no date fits its day, month and weekday fields together; widen one of them`},
		{"0 0 */31 * 5#5",
			`schedule "0 0 */31 * 5#5": never due: no date fits its day, month and weekday fields together; widen one of them`},
		{"0 0 0 29 2 * 2027",
			`schedule "0 0 0 29 2 * 2027": never due: none of the years it names has the date; write others`},
		{"0 0 L-30 2 *",
			`schedule "0 0 L-30 2 *": never due: no date fits its day, month and weekday fields together; widen one of them`},
		{"@fortnightly",
			`schedule "@fortnightly": "@fortnightly" is not known; write @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @reboot or @every DURATION`},
		{"@daily 5",
			`schedule "@daily 5": @daily stands alone; remove "5"`},
		{"@every",
			`schedule "@every": @every takes one duration; write it like @every 90s or @every 1h30m`},
		{"@every 1d",
			`schedule "@every 1d": "1d" is not a duration; write hours, minutes and seconds, like 90s, 1h30m or 168h for a week`},
		{"@every 500ms",
			`schedule "@every 500ms": @every counts whole seconds, from 1s up; 500ms is not`},
		{"@every 1.5s",
			`schedule "@every 1.5s": @every counts whole seconds, from 1s up; 1.5s is not`},
		{"@every 0s",
			`schedule "@every 0s": @every counts whole seconds, from 1s up; 0s is not`},
		{"@every -1h",
			`schedule "@every -1h": @every counts whole seconds, from 1s up; -1h is not`},
		{"@every 1h 30m",
			`schedule "@every 1h 30m": @every takes one duration; write it like @every 90s or @every 1h30m`},
		{"@reboot now",
			`schedule "@reboot now": @reboot stands alone; remove "now"`},
		{"@",
			`schedule "@": "@" is not known; write @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @reboot or @every DURATION`},
		{"0 0 * * mon\x00",
			`schedule "0 0 * * mon\x00": weekday "mon\x00" is not a value of the field; write a number from 0 to 7 or a name from SUN to SAT`},
		{"٣ * * * *",
			`schedule "٣ * * * *": "٣" has the character '٣', which no schedule has, though it may look like another; type it anew`},
		{"0 0 * * МОН",
			`schedule "0 0 * * МОН": "МОН" has the character 'М', which no schedule has, though it may look like another; type it anew`},
		{"0 0 * * ſun",
			`schedule "0 0 * * ſun": "ſun" has the character 'ſ', which no schedule has, though it may look like another; type it anew`},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			s, err := Parse(tt.expr, time.UTC)
			if err == nil {
				t.Fatalf("Parse(%q) = %v, want an error", tt.expr, s)
			}
			if err.Error() != tt.want {
				t.Errorf("Parse(%q): %s\nwant: %s", tt.expr, err, tt.want)
			}
		})
	}
}

func TestRefusesLongExpressions(t *testing.T) {
	long := strings.Repeat("1,", 507) + "10 * * * *"
	if _, err := Parse(long, time.UTC); err != nil || len(long) != MaxLen {
		t.Errorf("%d bytes: %v", len(long), err)
	}
	_, err := Parse(long+" ", time.UTC)
	if want := "the schedule is 1025 bytes long; at most 1024 are read"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// However many mistakes there are, the message stays one that can be read.
func TestRefusalsStayShort(t *testing.T) {
	for _, expr := range []string{strings.Repeat(",", 1000) + " * * * *", strings.Repeat("x", 1000) + " * * * *", strings.Repeat("99,88,", 150) + " * * * *",
		"@every " + strings.Repeat("9", 1000), "@" + strings.Repeat("9", 1000), "* * * * " + strings.Repeat("9L,", 300), strings.Repeat("5 ", 500)} {
		_, err := Parse(expr, time.UTC)
		if err == nil || len(err.Error()) > 800 {
			t.Errorf("Parse(%.10q...): %v", expr, err)
		}
	}
	var many strings.Builder
	for i := range 200 {
		many.WriteString(strconv.Itoa(100+i) + ",")
	}
	_, err := Parse(many.String()+"1 * * * *", time.UTC)
	if err == nil || len(err.Error()) > 800 || !strings.HasSuffix(err.Error(), "and 195 more") {
		t.Errorf("200 mistakes: %v", err)
	}
}

// A time that its zone skips may leave nothing of a schedule.
func TestNeverDueInZone(t *testing.T) {
	tests := []struct{ expr, zone, want string }{
		{"0 0 12 30 12 * 2011", "Pacific/Apia", `schedule "0 0 12 30 12 * 2011": never due: the times it names are skipped in Pacific/Apia, where the clocks go forward; write others`},
		{"0 */15 2 29 3 * 2026", "Europe/Berlin", `schedule "0 */15 2 29 3 * 2026": never due: the times it names are skipped in Europe/Berlin, where the clocks go forward; write others`},
	}
	for _, tt := range tests {
		_, err := Parse(tt.expr, mustZone(t, tt.zone))
		if err == nil || err.Error() != tt.want {
			t.Errorf("Parse(%q, %s): %v\nwant: %s", tt.expr, tt.zone, err, tt.want)
		}
		if _, err := Parse(tt.expr, time.UTC); err != nil {
			t.Errorf("Parse(%q, UTC): %v", tt.expr, err)
		}
	}
}

// What is to be written for a range that runs backwards is what it meant, and
// Parse takes it.
func TestForwards(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	table := fields()
	for _, f := range table[:year] {
		for lo := f.min; lo <= f.max; lo++ {
			for hi := f.min; hi < lo; hi++ {
				step := 1 + r.IntN(f.size)
				if r.IntN(2) == 0 {
					step = 1
				}
				span := strconv.Itoa(lo) + "-" + strconv.Itoa(hi)
				if f.names != "" && lo-f.min < f.size && r.IntN(2) == 0 {
					span = f.label(lo, true) + "-" + strconv.Itoa(hi)
				}
				if step > 1 {
					span += "/" + strconv.Itoa(step)
				}
				_, problems := f.parse(span)
				if len(problems) != 1 {
					t.Fatalf("%s %q: problems %q", f.name, span, problems)
				}
				_, write, ok := strings.Cut(problems[0], "the range runs backwards; write ")
				if !ok {
					t.Fatalf("%s %q: %s", f.name, span, problems[0])
				}
				got, problems := f.parse(write)
				if len(problems) > 0 {
					t.Fatalf("%s %q: %q is refused: %s", f.name, span, write, problems)
				}
				var want bitset
				start := lo
				if f.place == weekday && lo == 7 {
					start = 0
				}
				for v := start; v <= start+(hi-start+f.size)%f.size; v += step {
					want.add((v-f.min)%f.size + f.min)
				}
				if got.bits != want {
					t.Fatalf("%s %q: %q is %b, want %b", f.name, span, write, got.bits[0], want[0])
				}
			}
		}
	}
}

func TestAccessors(t *testing.T) {
	berlin := mustZone(t, "Europe/Berlin")
	tests := []struct {
		expr             string
		interval, reboot bool
	}{
		{"* * * * *", true, false},
		{"*/15 2 * * *", true, false},
		{"0 * * * *", true, false},
		{"0 */2 * * *", true, false},
		{"*,5 2 * * *", true, false},
		{"30 2 * * *", false, false},
		{"5,* 2 * * *", false, false},
		{"0 1-4 * * *", false, false},
		{"0 0-23 * * *", false, false},
		{"*/10 30 2 * * *", false, false},
		{"0 30 2 * * * *", false, false},
		{"@hourly", true, false},
		{"@daily", false, false},
		{"@every 1h", true, false},
		{"@reboot", false, true},
	}
	for _, tt := range tests {
		s := mustParse(t, "  "+tt.expr+"\n", berlin)
		if s.Interval() != tt.interval || s.Reboot() != tt.reboot || s.String() != tt.expr || s.Location() != berlin {
			t.Errorf("%q: Interval %v, Reboot %v, String %q, Location %v", tt.expr, s.Interval(), s.Reboot(), s, s.Location())
		}
	}
	if s := mustParse(t, "@daily", nil); s.Location() != time.Local {
		t.Errorf("Location() = %v, want Local", s.Location())
	}
}

func TestExplain(t *testing.T) {
	tests := []struct{ zone, expr, after, want string }{
		{"Europe/Berlin", "30 2 * * *", "2026-03-28 12:00:00 +0100", "02:30 does not exist on 2026-03-29 in Europe/Berlin; runs at 03:00"},
		{"Europe/Berlin", "0 3 * * *", "2026-03-28 12:00:00 +0100", ""},
		{"Europe/Berlin", "0 1,2,3 * * *", "2026-03-29 02:59:59 +0200", "02:00 does not exist on 2026-03-29 in Europe/Berlin; runs at 03:00"},
		{"Europe/Berlin", "0,30 2 * * *", "2026-03-28 12:00:00 +0100", "02:00 and 02:30 do not exist on 2026-03-29 in Europe/Berlin; runs at 03:00"},
		{"Europe/Berlin", "0-59/5 2 * * *", "2026-03-28 12:00:00 +0100", "12 times from 02:00 to 02:55 do not exist on 2026-03-29 in Europe/Berlin; runs at 03:00"},
		{"Europe/Berlin", "15 30 2 * * *", "2026-03-28 12:00:00 +0100", "02:30:15 does not exist on 2026-03-29 in Europe/Berlin; runs at 03:00"},
		{"Europe/Berlin", "30 * * * *", "2026-03-29 01:59:59 +0100", ""},
		{"Europe/Berlin", "0 * * * *", "2026-03-29 01:30:00 +0100", ""},
		{"America/Santiago", "@weekly", "2026-09-05 12:00:00 -0400", "00:00 does not exist on 2026-09-06 in America/Santiago; runs at 01:00"},
		{"America/Nuuk", "30 23 * * SAT", "2026-03-28 12:00:00 -0200", "23:30 does not exist on 2026-03-28 in America/Nuuk; runs at 00:00 on 2026-03-29"},
		{"Europe/Berlin", "30 2 * * *", "2026-10-24 12:00:00 +0200", "02:30 occurs twice on 2026-10-25 in Europe/Berlin; runs the first time only"},
		{"Europe/Berlin", "0 2 * * *", "2026-10-24 12:00:00 +0200", "02:00 occurs twice on 2026-10-25 in Europe/Berlin; runs the first time only"},
		{"Europe/Berlin", "59 1 * * *", "2026-10-24 12:00:00 +0200", ""},
		{"Europe/Berlin", "30 * * * *", "2026-10-25 02:00:00 +0200", "02:30 occurs twice on 2026-10-25 in Europe/Berlin; this is the first time"},
		{"Europe/Berlin", "30 * * * *", "2026-10-25 02:00:00 +0100", "02:30 occurs twice on 2026-10-25 in Europe/Berlin; this is the second time"},
		{"Europe/Berlin", "0 * * * *", "2026-10-25 02:59:59 +0200", "02:00 occurs twice on 2026-10-25 in Europe/Berlin; this is the second time"},
		{"Europe/Berlin", "0 * * * *", "2026-10-25 02:59:59 +0100", ""},
		{"Europe/Berlin", "30 1 * * *", "2026-10-24 12:00:00 +0200", ""},
		{"Europe/Berlin", "0 3 * * *", "2026-10-24 12:00:00 +0200", ""},
		{"Europe/Berlin", "30 2 * * *", "2026-07-01 12:00:00 +0200", ""},
		{"Australia/Lord_Howe", "45 1 * * *", "2026-04-04 12:00:00 +1100", "01:45 occurs twice on 2026-04-05 in Australia/Lord_Howe; runs the first time only"},
		{"UTC", "30 2 * * *", "2026-03-28 12:00:00 +0000", ""},
	}
	for _, tt := range tests {
		s := mustParse(t, tt.expr, mustZone(t, tt.zone))
		after, err := time.Parse(wall, tt.after)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Explain(s.Next(after)); got != tt.want {
			t.Errorf("%q after %s: Explain = %q, want %q", tt.expr, tt.after, got, tt.want)
		}
	}
	s := mustParse(t, "30 2 * * *", mustZone(t, "Europe/Berlin"))
	if got := s.Explain(time.Date(2026, 3, 29, 1, 0, 1, 0, time.UTC)); got != "" {
		t.Errorf("Explain of no tick = %q", got)
	}
	if got := mustParse(t, "@reboot", nil).Explain(time.Time{}); got != "" {
		t.Errorf("Explain of @reboot = %q", got)
	}
}
