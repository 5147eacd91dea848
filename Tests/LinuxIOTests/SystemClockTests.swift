import LinuxIO
import Primitives
import Testing

@Suite("The system's clocks")
struct SystemClockTests {
    @Test(
        "a moment is written as RFC 3339 writes it",
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"),
            (999, "1970-01-01T00:00:00.000Z"),
            (1_000, "1970-01-01T00:00:00.001Z"),
            (86_399_999_999, "1970-01-01T23:59:59.999Z"),
            (86_400_000_000, "1970-01-02T00:00:00.000Z"),
            // The leap days of 1972, 2000 (divisible by 400), not 2100 (by 100), and again 2400.
            (68_255_999_999_999, "1972-02-29T23:59:59.999Z"),
            (946_684_799_000_000, "1999-12-31T23:59:59.000Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000_000, "2000-03-01T00:00:00.000Z"),
            (1_000_000_000_000_000, "2001-09-09T01:46:40.000Z"),
            (1_772_366_400_123_456, "2026-03-01T12:00:00.123Z"),
            (2_147_483_648_000_000, "2038-01-19T03:14:08.000Z"),
            (4_107_542_399_999_000, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z"),
            (13_574_563_200_000_000, "2400-02-29T00:00:00.000Z"),
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999Z"),
        ] as [(Int64, String)])
    func writesTimestamps(microseconds: Int64, text: String) {
        #expect(SystemClock.timestamp(microseconds: microseconds) == text)
    }

    @Test("moments before 1970 are shown as its first", arguments: [-1, -1_000_000, .min] as [Int64])
    func clampsThePast(microseconds: Int64) {
        #expect(SystemClock.timestamp(microseconds: microseconds) == "1970-01-01T00:00:00.000Z")
    }

    @Test("the last moment that can be counted has a text")
    func writesTheLastMoment() {
        #expect(SystemClock.timestamp(microseconds: .max) == "294247-01-10T04:00:54.775Z")
    }

    @Test("every day from 1970 to 2403 follows the one before it by the rules of the calendar")
    func countsDays() {
        var (year, month, day) = (1970, 1, 1)
        // 158,000 days are a whole cycle of 400 years and more.
        for number in 0..<Int64(158_000) {
            let text = SystemClock.timestamp(microseconds: number * 86_400_000_000)
            let expected = "\(year)-\(month < 10 ? "0" : "")\(month)-\(day < 10 ? "0" : "")\(day)T00:00:00.000Z"
            if text != expected {
                Issue.record("day \(number) is \(text), expected \(expected)")
                return
            }
            let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
            let length =
                switch month {
                case 2: isLeap ? 29 : 28
                case 4, 6, 9, 11: 30
                default: 31
                }
            day += 1
            if day > length { (month, day) = (month + 1, 1) }
            if month > 12 { (year, month) = (year + 1, 1) }
        }
    }

    @Test("the monotonic clock never goes back")
    func isMonotonic() {
        var last = SystemClock.monotonic()
        for _ in 0..<1_000 {
            let now = SystemClock.monotonic()
            #expect(now >= last)
            last = now
        }
    }

    @Test("random values differ from one call to the next")
    func drawsRandomValues() {
        #expect(Set((0..<100).map { _ in SystemClock.random64() }).count == 100)
    }
}
