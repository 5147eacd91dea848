// One reader a kind of value. Each says in its error what to write instead.

import Primitives

/// A whole number in decimal digits. Signs, underscores, hexadecimal and leading zeros are refused: YAML's versions
/// disagree about `010`.
func integer(_ text: String, in range: ClosedRange<Int>) throws(Invalid) -> Int {
    let digits = text.utf8
    guard !digits.isEmpty, digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else {
        throw Invalid("\(quoted(text)) is not a whole number; write one in \(shown(range))")
    }
    if digits.count > 1, digits.first == 0x30 {
        throw Invalid("\(quoted(text)) starts with a zero, which some read as octal; write it without")
    }
    guard let number = Int(text), range.contains(number) else {
        throw Invalid("\(quoted(text)) is out of range; write a number in \(shown(range))")
    }
    return number
}

/// `nil` for `0`: no limit.
func integerOrNone(_ text: String, max: Int) throws(Invalid) -> Int? {
    let number = try integer(text, in: 0...max)
    return number == 0 ? nil : number
}

private func shown(_ range: ClosedRange<Int>) -> String { "\(range.lowerBound)...\(range.upperBound)" }

func boolean(_ text: String) throws(Invalid) -> Bool {
    switch text {
    case "true": return true
    case "false": return false
    case "yes", "Yes", "on", "On", "1": throw Invalid(notOneOf(text, ["true", "false"], near: "true"))
    case "no", "No", "off", "Off", "0": throw Invalid(notOneOf(text, ["true", "false"], near: "false"))
    default: throw Invalid(notOneOf(text, ["true", "false"]))
    }
}

/// One of the raw values of an enum.
func choice<T: RawRepresentable<String> & CaseIterable>(_ text: String) throws(Invalid) -> T {
    guard let value = T(rawValue: text) else { throw Invalid(notOneOf(text, T.allCases.map(\.rawValue))) }
    return value
}

/// The error for a word that is none of those known.
func notOneOf(_ text: String, _ known: [String], near: String? = nil) -> String {
    let remedy = (near ?? suggestion(for: text, among: known)).map { " (did you mean \($0)?)" } ?? ""
    return "\(quoted(text)) is not one of \(known.joined(separator: ", "))\(remedy)"
}

/// `50%`.
func percent(_ text: String, in range: ClosedRange<Int>) throws(Invalid) -> Int {
    guard text.hasSuffix("%"), let number = try? integer(String(text.dropLast()), in: range) else {
        throw Invalid("\(quoted(text)) is not a share; write one in \(range.lowerBound)%...\(range.upperBound)%")
    }
    return number
}

private let timeUnits: [(name: String, nanoseconds: Int64)] = [
    ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
]

/// `500ms`, `30s`, `1.5m`; a bare `0` where the range holds it, since zero needs no unit.
/// - Parameter bareSeconds: whether a number without a unit means seconds, as the seed's `timeout: 30` does.
func duration(_ text: String, in range: ClosedRange<TimeSpan>, bareSeconds: Bool = false) throws(Invalid) -> TimeSpan {
    let (number, unit) = splitUnit(text)
    let size: Int64
    if let known = timeUnits.first(where: { $0.name == unit }) {
        size = known.nanoseconds
    } else if unit.isEmpty, !number.isEmpty {
        if !bareSeconds && number != "0" {
            throw Invalid("\(quoted(text)) has no unit; write \(number)s or \(number)ms")
        }
        size = 1_000_000_000
    } else {
        throw Invalid("\(quoted(text)) is not a duration; write a number and a unit, such as 500ms, 30s, 5m or 1h")
    }
    guard let nanoseconds = scaled(number, by: size) else {
        throw Invalid("\(quoted(text)) is not a duration; write a number and a unit, such as 500ms, 30s, 5m or 1h")
    }
    let span = TimeSpan(nanoseconds: nanoseconds)
    guard range.contains(span) else {
        throw Invalid("\(quoted(text)) is out of range; write a duration in \(range.lowerBound)...\(range.upperBound)")
    }
    return span
}

/// `nil` for `0`: no limit. At least a millisecond otherwise.
func durationOrNone(_ text: String, bareSeconds: Bool = false) throws(Invalid) -> TimeSpan? {
    let span = try duration(text, in: .zero...Bounds.timeoutMax, bareSeconds: bareSeconds)
    if span == .zero { return nil }
    if span < .milliseconds(1) {
        throw Invalid("\(quoted(text)) is out of range; write 1ms or more, or 0 for no limit")
    }
    return span
}

private let sizeUnits: [(name: String, bytes: Int64)] = [
    ("B", 1), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("KiB", 1 << 10), ("MiB", 1 << 20),
    ("GiB", 1 << 30),
]

/// `64KiB`, `1MB`, or bytes when bare; `nil` for `0`: no limit.
func sizeOrNone(
    _ text: String, min: ByteCount = .bytes(1), max: ByteCount = Bounds.bytesMax
) throws(Invalid) -> ByteCount? {
    let (number, unit) = splitUnit(text)
    let size = unit.isEmpty ? 1 : sizeUnits.first { $0.name == unit }?.bytes
    guard let size, !number.contains("."), let bytes = scaled(number, by: size) else {
        throw Invalid("\(quoted(text)) is not a size; write bytes, or a number and a unit, such as 64KiB, 1MiB or 10MB")
    }
    if bytes == 0 { return nil }
    guard let count = Int(exactly: bytes), (min.bytes...max.bytes).contains(count) else {
        throw Invalid("\(quoted(text)) is out of range; write a size in \(min)...\(max), or 0 for no limit")
    }
    return .bytes(count)
}

private func splitUnit(_ text: String) -> (number: Substring, unit: Substring) {
    let number = text.prefix { $0.isASCII && $0.isNumber || $0 == "." }
    return (number, text[number.endIndex...])
}

/// A decimal number times a unit, rounded down. `nil` where it is no number, or too large.
private func scaled(_ number: Substring, by unit: Int64) -> Int64? {
    var value: Int128 = 0
    var divisor: Int128 = 1
    var seenPoint = false
    var digits = 0
    for byte in number.utf8 {
        if byte == UInt8(ascii: ".") {
            if seenPoint || digits == 0 { return nil }
            seenPoint = true
            digits = 0
            continue
        }
        digits += 1
        // 18 digits and a unit of 47 bits stay far within 128.
        if digits > 18 { return nil }
        value = value * 10 + Int128(byte - 0x30)
        if seenPoint { divisor *= 10 }
    }
    guard digits > 0 else { return nil }
    return Int64(exactly: value * Int128(unit) / divisor)
}

/// RFC 9110 §5.6.2: a field name, a protocol, a pseudonym.
func token(_ text: String, max: Int) throws(Invalid) -> String {
    let extra = Array("!#$%&'*+-.^_`|~".utf8)
    let isToken = text.utf8.allSatisfy { isAlphanumeric($0) || extra.contains($0) }
    guard !text.isEmpty, isToken else {
        throw Invalid("\(quoted(text)) is not a token; use letters, digits and !#$%&'*+-.^_`|~")
    }
    guard text.utf8.count <= max else { throw Invalid("\(quoted(text)) is longer than \(max) bytes") }
    return text
}

func isAlphanumeric(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
    default: false
    }
}

/// The bytes of a service's name.
func isNameByte(_ byte: UInt8) -> Bool {
    isAlphanumeric(byte) || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ".")
}

func cidr(_ text: String) throws(Invalid) -> CIDR {
    if let block = CIDR(text) {
        return block
    }
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    if parts.count == 2, let address = IPAddress(parts[0]), let length = Int(parts[1]), length >= 0,
        length <= (address.family == .v4 ? 32 : 128)
    {
        throw Invalid("\(quoted(text)) has bits set behind the prefix; write the block's first address")
    }
    throw Invalid("\(quoted(text)) is not a block of addresses; write one such as 10.0.0.0/8 or 2001:db8::/32")
}

/// A status code such as `200`, or a class such as `2xx`.
func statuses(_ text: String) throws(Invalid) -> ClosedRange<Int> {
    if let first = text.utf8.first, text.dropFirst().lowercased() == "xx", first >= 0x32, first <= 0x35 {
        let start = Int(first - 0x30) * 100
        return start...start + 99
    }
    guard let code = try? integer(text, in: 200...599) else {
        throw Invalid("\(quoted(text)) is not a status; write a code in 200...599, or a class such as 2xx")
    }
    return code...code
}
