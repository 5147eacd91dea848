// The Date field (RFC 9110 §6.6.1), in the one form of dates that may be sent: IMF-fixdate (§5.6.7).

package import LinuxIO

extension ByteBuffer {
    /// Appends `Date: Sun, 06 Nov 1994 08:49:37 GMT` with its line end. `seconds` since 1970; those before it, and those
    /// after the year 9999, which the form cannot hold, are shown as the first and the last that it can.
    package mutating func appendDate(seconds: Int64) {
        let moment = max(0, min(seconds, 253_402_300_799))
        // Days to a civil date, with years that begin in March (Hinnant, "chrono-compatible low-level date algorithms").
        let today = moment / 86_400
        let days = today + 719_468
        let era = days / 146_097
        let dayOfEra = days % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        append("Date: ")
        append(Self.weekdays[Int((today + 4) % 7)])
        append(", ")
        append(two: dayOfYear - (153 * shifted + 2) / 5 + 1)
        append(Self.months[Int(month - 1)])
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        append(two: year / 100)
        append(two: year % 100)
        append(" ")
        append(two: moment / 3_600 % 24)
        append(":")
        append(two: moment / 60 % 60)
        append(":")
        append(two: moment % 60)
        append(" GMT\r\n")
    }

    private mutating func append(two number: Int64) {
        append(0x30 + UInt8(truncatingIfNeeded: number / 10))
        append(0x30 + UInt8(truncatingIfNeeded: number % 10))
    }

    private static let weekdays: [StaticString] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
    private static let months: [StaticString] = [
        " Jan ", " Feb ", " Mar ", " Apr ", " May ", " Jun ", " Jul ", " Aug ", " Sep ", " Oct ", " Nov ", " Dec ",
    ]
}
