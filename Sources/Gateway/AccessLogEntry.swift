// A line of an access log, read back: of a node's own, as text or JSON, and in the common and combined formats of nginx
// and Apache.

package import Primitives

package struct AccessLogEntry: Equatable, Sendable {
    /// When the request was answered, in microseconds since 1970.
    package var time: Int64 = 0
    package var client = IPAddress(v4: 0)
    /// `GET /path`, as the client sent it; empty where it sent no request that could be read.
    package var request: [UInt8] = []
    package var status = 0
    /// `user:42`, or another kind where there was no user.
    package var identity: String?
    /// Whether a node answered it without asking any limit: credentials that do not hold, for example.
    package var isUnlimited = false

    package struct Unreadable: Error, Equatable, CustomStringConvertible {
        package let description: String
        package init(_ description: String) { self.description = description }
    }

    /// Reads a line without its end.
    package init(_ line: ArraySlice<UInt8>) throws(Unreadable) {
        switch line.first {
        case UInt8(ascii: "{"): try readJSON(line)
        case nil: throw Unreadable("an empty line")
        default:
            var words = Words(line)
            let first = try words.next("a time or an address")
            // An IPv6 address may begin like a year; no address holds a T.
            if let time = Self.time(rfc3339: first) {
                try readText(time, &words)
            } else {
                try readCommon(first, &words)
            }
        }
    }

    // MARK: A node's own

    /// `TIME CLIENT "METHOD TARGET" STATUS RECEIVED SENT MICROSECONDS SERVICE BACKEND LIMIT [IDENTITY] [id=NAME] [trace=NAME]`
    private mutating func readText(_ time: Int64, _ words: inout Words) throws(Unreadable) {
        self.time = time
        client = try Self.address(try words.next("a client"))
        request = try words.quoted("a request")
        status = try Self.number(try words.next("a status"))
        for name in ["the bytes received", "the bytes sent"] { _ = try Self.number(try words.next(name)) }
        _ = try words.next("the duration")
        _ = try words.next("a service")
        let backend = try words.next("a backend")
        let limit = try words.next("what limits said")
        note(limit: limit, hasBackend: backend != [UInt8(ascii: "-")])
        // Names of the request and its trace may follow, or stand there alone.
        if let identity = words.nextIfAny(), identity != [UInt8(ascii: "-")], !identity.starts(with: "id=".utf8),
            !identity.starts(with: "trace=".utf8)
        {
            self.identity = String(decoding: identity, as: UTF8.self)
        }
    }

    /// Also of chosen fields, as long as they tell when, who and what.
    private mutating func readJSON(_ line: ArraySlice<UInt8>) throws(Unreadable) {
        var object = FlatObject(line)
        var found: [String: [UInt8]] = [:]
        while let (name, value) = try object.next() { found[name] = value }
        func field(_ name: String) throws(Unreadable) -> ArraySlice<UInt8> {
            guard let value = found[name] else { throw Unreadable("no \"\(name)\"") }
            return value[...]
        }
        guard let time = Self.time(rfc3339: try field("time")) else { throw Unreadable("\"time\" is no time") }
        self.time = time
        client = try Self.address(try field("client"))
        if let method = found["method"], let target = found["target"] {
            request = method + [UInt8(ascii: " ")] + target
        } else {
            request = Array(try field("request"))
        }
        if let status = found["status"] { self.status = try Self.number(status[...]) }
        note(limit: found["limit"]?[...] ?? [], hasBackend: found["backend"] != nil)
        // An identity is written with escapes for its line, a user alone is not.
        identity =
            found["identity"].map { String(decoding: $0, as: UTF8.self) }
            ?? found["user"].map { "user:" + String(decoding: $0, as: UTF8.self).replacing("%", with: "%25") }
    }

    private mutating func note(limit: ArraySlice<UInt8>, hasBackend: Bool) {
        isUnlimited = !hasBackend && limit.elementsEqual("-".utf8) && (400...499).contains(status)
    }

    // MARK: Others'

    /// `ADDRESS IDENT USER [TIME] "METHOD TARGET VERSION" STATUS BYTES …`
    private mutating func readCommon(_ first: ArraySlice<UInt8>, _ words: inout Words) throws(Unreadable) {
        client = try Self.address(first)
        _ = try words.next("a user")
        _ = try words.next("a user")
        // A user's name may hold spaces; the time is the first in brackets.
        time = try words.bracketed()
        var line = try words.quoted("a request")
        status = try Self.number(try words.next("a status"))
        // Without its version; without one it is none that counts.
        guard let end = line.lastIndex(of: UInt8(ascii: " ")), line[(end + 1)...].starts(with: "HTTP/".utf8) else {
            return
        }
        line.removeSubrange(end...)
        request = line
    }

    // MARK: Parts

    private static func address(_ text: ArraySlice<UInt8>) throws(Unreadable) -> IPAddress {
        guard let address = IPAddress(ascii: Array(text).span) else { throw Unreadable("no address of a client") }
        return address
    }

    private static func number(_ text: ArraySlice<UInt8>) throws(Unreadable) -> Int {
        guard let number = digits(text) else { throw Unreadable("no number where one should be") }
        return number
    }

    private static func digits(_ text: ArraySlice<UInt8>) -> Int? {
        guard !text.isEmpty, text.count <= 15 else { return nil }
        var number = 0
        for byte in text {
            guard byte >= 0x30, byte <= 0x39 else { return nil }
            number = number * 10 + Int(byte - 0x30)
        }
        return number
    }

    /// `2026-03-01T12:00:00.123Z`, also without the fraction and with an offset.
    static func time(rfc3339 text: ArraySlice<UInt8>) -> Int64? {
        let text = Array(text)
        guard text.count >= 20, text[4] == 0x2d, text[7] == 0x2d, text[10] == UInt8(ascii: "T"), text[13] == 0x3a,
            text[16] == 0x3a, let year = digits(text[0..<4]), let month = digits(text[5..<7]),
            let day = digits(text[8..<10]), let seconds = secondOfDay(text[11..<19])
        else { return nil }
        var index = 19
        var fraction: Int64 = 0
        if text[index] == UInt8(ascii: ".") {
            var scale: Int64 = 100_000
            index += 1
            while index < text.count, let digit = digits(text[index...index]) {
                fraction += Int64(digit) * scale
                scale /= 10
                index += 1
            }
        }
        guard index < text.count, let days = days(year, month, day) else { return nil }
        let offset: Int64
        if text[index...] == [UInt8(ascii: "Z")] {
            offset = 0
        } else if text.count == index + 6, text[index + 3] == 0x3a {
            guard let found = Self.offset(text[index], text[(index + 1)...(index + 2)], text[(index + 4)...]) else {
                return nil
            }
            offset = found
        } else {
            return nil
        }
        return ((days * 86_400 + seconds) - offset) * 1_000_000 + fraction
    }

    /// `10/Oct/2026:13:55:36 -0700`.
    static func time(common text: ArraySlice<UInt8>) -> Int64? {
        let text = Array(text)
        let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        guard text.count == 26, text[2] == 0x2f, text[6] == 0x2f, text[11] == 0x3a, text[20] == 0x20,
            let day = digits(text[0..<2]),
            let month = names.firstIndex(of: String(decoding: text[3..<6], as: UTF8.self)),
            let year = digits(text[7..<11]), let seconds = secondOfDay(text[12..<20]),
            let offset = offset(text[21], text[22..<24], text[24...]), let days = days(year, month + 1, day)
        else { return nil }
        return (days * 86_400 + seconds - offset) * 1_000_000
    }

    /// `13:55:36`; a leap second is the one before it.
    private static func secondOfDay(_ text: ArraySlice<UInt8>) -> Int64? {
        let start = text.startIndex
        guard let hour = digits(text[start..<(start + 2)]), let minute = digits(text[(start + 3)..<(start + 5)]),
            let second = digits(text[(start + 6)...]), hour < 24, minute < 60, second <= 60
        else { return nil }
        return Int64(hour * 3_600 + minute * 60 + min(second, 59))
    }

    private static func offset(_ sign: UInt8, _ hours: ArraySlice<UInt8>, _ minutes: ArraySlice<UInt8>) -> Int64? {
        guard sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-"), let hours = digits(hours),
            let minutes = digits(minutes), hours < 24, minutes < 60
        else { return nil }
        let seconds = Int64(hours * 3_600 + minutes * 60)
        return sign == UInt8(ascii: "-") ? -seconds : seconds
    }

    /// Days since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
    private static func days(_ year: Int, _ month: Int, _ day: Int) -> Int64? {
        guard (1970...9999).contains(year), (1...12).contains(month), (1...31).contains(day) else { return nil }
        let shifted = month <= 2 ? year - 1 : year
        let era = shifted / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * ((month + 9) % 12) + 2) / 5 + day - 1
        return Int64(era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468)
    }
}

/// The parts of a line: words between spaces, texts in quotes, a time in brackets.
private struct Words {
    private let line: ArraySlice<UInt8>
    private var index: Int

    init(_ line: ArraySlice<UInt8>) {
        self.line = line
        index = line.startIndex
    }

    private mutating func skipSpaces() {
        while index < line.endIndex, line[index] == 0x20 { index += 1 }
    }

    mutating func nextIfAny() -> ArraySlice<UInt8>? {
        skipSpaces()
        let start = index
        while index < line.endIndex, line[index] != 0x20 { index += 1 }
        return start < index ? line[start..<index] : nil
    }

    mutating func next(_ what: String) throws(AccessLogEntry.Unreadable) -> ArraySlice<UInt8> {
        guard let word = nextIfAny() else { throw AccessLogEntry.Unreadable("ends before \(what)") }
        return word
    }

    mutating func bracketed() throws(AccessLogEntry.Unreadable) -> Int64 {
        while index < line.endIndex {
            guard line[index] == UInt8(ascii: "[") else {
                index += 1
                continue
            }
            let end = line[index...].firstIndex(of: UInt8(ascii: "]")) ?? line.endIndex
            guard let time = AccessLogEntry.time(common: line[(index + 1)..<end]) else { break }
            index = end + 1
            return time
        }
        throw AccessLogEntry.Unreadable("no time such as [10/Oct/2026:13:55:36 +0000]")
    }

    /// A text in quotes, its escapes undone.
    mutating func quoted(_ what: String) throws(AccessLogEntry.Unreadable) -> [UInt8] {
        skipSpaces()
        guard index < line.endIndex, line[index] == UInt8(ascii: "\"") else {
            throw AccessLogEntry.Unreadable("no \(what) in quotes")
        }
        index += 1
        guard let text = Escapes.read(line, &index) else { throw AccessLogEntry.Unreadable("\(what) without an end") }
        return text
    }
}

/// What stands in quotes.
private enum Escapes {
    /// Reads up to the closing quote and past it; `nil` where there is none.
    static func read(_ line: ArraySlice<UInt8>, _ index: inout Int) -> [UInt8]? {
        var text: [UInt8] = []
        while index < line.endIndex {
            let byte = line[index]
            index += 1
            switch byte {
            case UInt8(ascii: "\""): return text
            case UInt8(ascii: "\\"):
                guard index < line.endIndex else { return nil }
                let kind = line[index]
                index += 1
                switch kind {
                // `\u00e4` of JSON stands for a byte in our logs; beyond a byte it is no part of a request.
                case UInt8(ascii: "u"): text.append(hexadecimal(line, &index, 4))
                case UInt8(ascii: "x"): text.append(hexadecimal(line, &index, 2))
                case UInt8(ascii: "n"): text.append(0x0a)
                case UInt8(ascii: "r"): text.append(0x0d)
                case UInt8(ascii: "t"): text.append(0x09)
                default: text.append(kind)
                }
            default: text.append(byte)
            }
        }
        return nil
    }

    private static func hexadecimal(_ line: ArraySlice<UInt8>, _ index: inout Int, _ width: Int) -> UInt8 {
        let end = min(index + width, line.endIndex)
        let value = UInt32(String(decoding: line[index..<end], as: UTF8.self), radix: 16)
        index = end
        return value.flatMap { UInt8(exactly: $0) } ?? 0xff
    }
}

/// A JSON object (RFC 8259) of texts, numbers and words, as the access log has it.
private struct FlatObject {
    private let line: ArraySlice<UInt8>
    private var index: Int
    private var isFirst = true

    init(_ line: ArraySlice<UInt8>) {
        self.line = line
        index = line.startIndex + 1
    }

    private mutating func peek() -> UInt8? {
        while index < line.endIndex, line[index] == 0x20 || line[index] == 0x09 { index += 1 }
        return index < line.endIndex ? line[index] : nil
    }

    mutating func next() throws(AccessLogEntry.Unreadable) -> (name: String, value: [UInt8])? {
        let broken = AccessLogEntry.Unreadable("no JSON object of texts and numbers")
        if peek() == UInt8(ascii: "}") {
            index += 1
            guard peek() == nil else { throw broken }
            return nil
        }
        if !isFirst {
            guard peek() == UInt8(ascii: ",") else { throw broken }
            index += 1
        }
        isFirst = false
        guard peek() == UInt8(ascii: "\"") else { throw broken }
        index += 1
        guard let name = Escapes.read(line, &index), peek() == UInt8(ascii: ":") else { throw broken }
        index += 1
        guard let first = peek() else { throw broken }
        if first == UInt8(ascii: "\"") {
            index += 1
            guard let value = Escapes.read(line, &index) else { throw broken }
            return (String(decoding: name, as: UTF8.self), value)
        }
        let start = index
        while index < line.endIndex, line[index] != UInt8(ascii: ","), line[index] != UInt8(ascii: "}") { index += 1 }
        guard start < index, first != UInt8(ascii: "{"), first != UInt8(ascii: "[") else { throw broken }
        var end = index
        while end > start, line[end - 1] == 0x20 { end -= 1 }
        return (String(decoding: name, as: UTF8.self), Array(line[start..<end]))
    }
}
