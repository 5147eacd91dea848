// The field lines of a head (RFC 9112 §5), for requests and responses alike: one pass over the bytes that checks,
// trims and classifies each line and interprets the fields on which framing and persistence depend.
//
// The verdict depends on the bytes up to the first offending one and on nothing behind it, so that it is the same
// however the bytes were cut on their way.

/// What a scanner found: the offset behind what it read, or why it stopped.
enum Scan {
    case next(Int)
    case needMore
    case malformed(Violation)

    @inline(__always)
    static func refuse(_ rule: Rule, at offset: Int) -> Scan { .malformed(Violation(rule, at: offset)) }

    /// The scanner ran out of bytes at `end`: either all that arrived are read, or a limit was reached.
    static func ranOut(at end: Int, of bytes: Span<UInt8>, limit: Rule) -> Scan {
        end < bytes.count ? .refuse(limit, at: end) : .needMore
    }
}

/// The rule that a byte breaks which ends a field name and is no colon.
func nameViolation(_ byte: UInt8, isFirst: Bool) -> Rule {
    switch byte {
    case ASCII.lineFeed:
        // RFC 9112 §2.2 lets a recipient accept a bare LF as a line end; a peer that does not sees other lines.
        .bareLineFeed
    case ASCII.carriageReturn:
        .missingColon
    case ASCII.space, ASCII.tab:
        // RFC 9112 §2.2, §5.2: a folded line is a value for some parsers and a field for others.
        // RFC 9112 §5.1: `Transfer-Encoding : chunked` is ignored by some parsers and obeyed by others.
        isFirst ? .foldedLine : .whitespaceBeforeColon
    case ASCII.colon:
        .emptyFieldName
    default:
        .invalidFieldName
    }
}

/// The rule that a byte breaks which a field value cannot hold. RFC 9110 §5.5: NUL, CR and LF are dangerous because
/// other parsers end the value there and read the rest as a field of its own.
func valueViolation(_ byte: UInt8) -> Rule {
    byte == ASCII.lineFeed ? .bareLineFeed : .invalidFieldValue
}

struct FieldSection: Sendable {
    private let isRequest: Bool
    /// -1 where there is no Content-Length.
    private(set) var contentLength: Int64 = -1
    /// The same where it was written with leading zeros. RFC 9110 §8.6 allows them, and C's `strtol` takes `010` for 8:
    /// the line is not passed on, and whoever writes the head writes the length anew.
    private(set) var respelledLength: Int64 = -1
    private(set) var expectsContinue = false
    private var chunkedCodings = 0
    private var otherCodings = 0
    private var endsInChunked = false
    private(set) var close = false
    private(set) var keepAlive = false
    private(set) var upgrade = false
    private var connectionOptions = 0
    private var named = FieldSet()
    private var namesOthers = false
    /// RFC 9110 §10.1.4: TE concerns the next hop alone, so it counts only where Connection names it.
    var namesTE: Bool { named.contains(.te) }

    init(isRequest: Bool) { self.isRequest = isRequest }

    /// Reads field lines from `start` up to and including the empty line that ends them.
    mutating func parse(
        _ bytes: Span<UInt8>, from start: Int, limits: HeadLimits, into fields: inout HeaderFields
    ) -> Scan {
        let limit = limits.fieldsEnd(from: start)
        let end = min(bytes.count, limit)
        let countMax = limits.fieldCountMax
        let table = FieldNameTable.shared
        let hopByHop = FieldSet.hopByHop
        var i = start
        while i < end {
            let lineStart = i
            var byte = bytes[i]
            if byte == ASCII.carriageReturn {
                i += 1
                guard i < end else { break }
                guard bytes[i] == ASCII.lineFeed else { return .refuse(.bareCarriageReturn, at: i - 1) }
                if !named.isEmpty || namesOthers { markNamed(bytes, &fields) }
                return .next(i + 1)
            }
            guard fields.lines.count < countMax else { return .refuse(.headerCount, at: i) }

            i = nameLettersEnd(bytes, from: i, to: end)
            guard i < end else { return .ranOut(at: end, of: bytes, limit: .headerBytes) }
            byte = bytes[i]
            let isPlain = byte == ASCII.colon
            if !isPlain {
                while isToken(byte) {
                    i &+= 1
                    guard i < end else { return .ranOut(at: end, of: bytes, limit: .headerBytes) }
                    byte = bytes[i]
                }
            }
            guard byte == ASCII.colon, i > lineStart else {
                return .refuse(nameViolation(byte, isFirst: i == lineStart), at: i)
            }
            let nameEnd = i

            repeat {
                i += 1
                guard i < end else { return .ranOut(at: end, of: bytes, limit: .headerBytes) }
                byte = bytes[i]
            } while isBlank(byte)
            let valueStart = i
            i = fieldValueEnd(bytes, from: i, to: end)
            guard i < end else { return .ranOut(at: end, of: bytes, limit: .headerBytes) }
            byte = bytes[i]
            guard byte == ASCII.carriageReturn else { return .refuse(valueViolation(byte), at: i) }
            var valueEnd = i
            while valueEnd > valueStart, isBlank(bytes[valueEnd - 1]) { valueEnd -= 1 }
            i += 1
            guard i < end else { break }
            // RFC 9112 §2.2: a bare CR is a line end to some parsers and a space to others.
            guard bytes[i] == ASCII.lineFeed else { return .refuse(.bareCarriageReturn, at: i - 1) }
            i += 1

            let key = NameKey(bytes, lineStart..<nameEnd)
            let id = table.name(for: key)
            let value = valueStart..<valueEnd
            let stays = id == .other ? isRequest && !isPlain && isLookalike(key, table) : hopByHop.contains(id)
            fields.lines.append(
                HeaderField(line: lineStart..<i, nameEnd: nameEnd, value: value, id: id, hopByHop: stays))
            if id != .other, let rule = interpret(id, value, bytes, &fields) {
                // RFC 9112 §5.2: what seems empty may be folded, and a parser that unfolds it sees another value.
                guard value.isEmpty else { return .refuse(rule, at: valueStart) }
                guard i < end else { break }
                return isBlank(bytes[i]) ? .refuse(.foldedLine, at: i) : .refuse(rule, at: valueStart)
            }
        }
        return .ranOut(at: end, of: bytes, limit: .headerBytes)
    }

    /// Whether a name is one that we act upon but for a `_`, a `.` or another sign in place of a `-`. CGI, WSGI and PHP
    /// give all of these to the application under one name, so `X_Forwarded_For` or `X.Forwarded.For` would pass for the
    /// field that the gateway has set. A name of letters and hyphens needs no look.
    @inline(__always)
    private func isLookalike(_ key: NameKey, _ table: FieldNameTable) -> Bool {
        let hyphenated = key.hyphenated
        return hyphenated != key && table.name(for: hyphenated) != .other
    }

    /// Takes note of a known field; returns the rule that it breaks, if any.
    private mutating func interpret(
        _ id: FieldName, _ value: Range<Int>, _ bytes: Span<UInt8>, _ fields: inout HeaderFields
    ) -> Rule? {
        let isRepeated = fields.present.contains(id)
        if isRepeated { fields.repeated.insert(id) }
        fields.present.insert(id)
        switch id {
        case .contentLength:
            let rule = noteContentLength(value, bytes, isRepeated: isRepeated)
            if respelledLength >= 0 { fields.lines[fields.lines.count - 1].hopByHop = true }
            return rule
        case .transferEncoding: return noteTransferEncoding(value, bytes)
        case .connection: return noteConnection(value, bytes)
        case .host where isRequest: return noteHost(value, bytes, isRepeated: isRepeated)
        case .expect where isRequest: return noteExpect(value, bytes, isRepeated: isRepeated)
        default: return nil
        }
    }

    /// RFC 9112 §3.2: two hosts, or one that is none, are routed by the first here and by the last there.
    private func noteHost(_ value: Range<Int>, _ bytes: Span<UInt8>, isRepeated: Bool) -> Rule? {
        if isRepeated { return .repeatedHost }
        return isHost(bytes, value) ? nil : .malformedHost
    }

    /// RFC 9110 §10.1.1: an expectation that is not understood is better refused than silently not met.
    private mutating func noteExpect(_ value: Range<Int>, _ bytes: Span<UInt8>, isRepeated: Bool) -> Rule? {
        guard !isRepeated, NameKey(bytes, value) == .continue100 else { return .unknownExpectation }
        expectsContinue = true
        return nil
    }

    /// RFC 9110 §8.6: digits and nothing else. A sign, a list or white space within is read as one length here and as
    /// another one there, and the difference is the start of a request of the attacker's. RFC 9112 §6.3 would let us
    /// accept identical repeats; whoever sends them is broken or probing.
    private mutating func noteContentLength(_ value: Range<Int>, _ bytes: Span<UInt8>, isRepeated: Bool) -> Rule? {
        if isRepeated { return .repeatedContentLength }
        // 19 digits hold every length up to 2^63 - 1.
        guard !value.isEmpty, value.count <= 19 else { return .malformedContentLength }
        var length: UInt64 = 0
        for i in value {
            guard isDigit(bytes[i]) else { return .malformedContentLength }
            length = length &* 10 &+ UInt64(bytes[i] &- 0x30)
        }
        guard let length = Int64(exactly: length) else { return .malformedContentLength }
        contentLength = length
        if value.count > 1, bytes[value.lowerBound] == UInt8(ascii: "0") { respelledLength = length }
        return nil
    }

    /// RFC 9112 §6.1. Only names are read: `chunked` takes no parameters (§7), and empty list elements, which §5.6.1 of
    /// RFC 9110 tolerates, are how `Transfer-Encoding: ,chunked` hides from a filter.
    private mutating func noteTransferEncoding(_ value: Range<Int>, _ bytes: Span<UInt8>) -> Rule? {
        var i = value.lowerBound
        while true {
            while i < value.upperBound, isBlank(bytes[i]) { i += 1 }
            let start = i
            var key = NameKey()
            while i < value.upperBound, isToken(bytes[i]) {
                key.push(bytes[i])
                i += 1
            }
            guard i > start else { return .malformedTransferEncoding }
            endsInChunked = key == .chunked
            if endsInChunked { chunkedCodings += 1 } else { otherCodings += 1 }
            while i < value.upperBound, isBlank(bytes[i]) { i += 1 }
            if i == value.upperBound { return nil }
            guard bytes[i] == ASCII.comma else { return .malformedTransferEncoding }
            i += 1
        }
    }

    var isChunked: Bool { endsInChunked }

    /// The contradictions between framing fields, judged when all of them are known.
    func framingViolation(version: HTTPVersion) -> Rule? {
        guard chunkedCodings + otherCodings > 0 else { return nil }
        // RFC 9112 §6.1: a 1.0 agent in the chain may have passed on a coding that it did not understand.
        if version == .http10 { return .transferEncodingInHTTP10 }
        // RFC 9112 §6.3: both framings present: refuse, or a second message hides in the body.
        if contentLength >= 0 { return .transferEncodingWithContentLength }
        // RFC 9112 §6.3: without a final chunked the length of the body is anybody's guess.
        if chunkedCodings != 1 || !endsInChunked { return .chunkedNotFinal }
        return otherCodings > 0 ? .unknownTransferCoding : nil
    }

    /// RFC 9112 §9.3.
    func persists(version: HTTPVersion) -> Bool {
        switch version {
        case .http11: !close
        case .http10: keepAlive && !close
        }
    }
}

// `Connection` (RFC 9110 §7.6.1)
extension FieldSection {
    private mutating func noteConnection(_ value: Range<Int>, _ bytes: Span<UInt8>) -> Rule? {
        // Nearly every head that has the field says one of these two words and nothing else.
        if value.count == 10 || value.count == 5 {
            let key = NameKey(bytes, value)
            let isWhole = value.count == 10 ? key == .keepAlive : key == .close
            if isWhole, connectionOptions < CodecLimits.connectionOptionsMax {
                connectionOptions += 1
                if value.count == 10 { keepAlive = true } else { close = true }
                return nil
            }
        }
        let table = FieldNameTable.shared
        var options = ListElements(value)
        while let option = options.next(bytes) {
            guard isToken(bytes, option) else { return .malformedConnection }
            connectionOptions += 1
            guard connectionOptions <= CodecLimits.connectionOptionsMax else { return .malformedConnection }
            let key = NameKey(bytes, option)
            if key == .close {
                close = true
                continue
            }
            if key == .keepAlive {
                keepAlive = true
                continue
            }
            switch table.name(for: key) {
            case .upgrade: upgrade = true
            case .other: namesOthers = true
            case let name: named.insert(name)
            }
        }
        return nil
    }

    /// Marks the fields that `Connection` names, before or behind it.
    private func markNamed(_ bytes: Span<UInt8>, _ fields: inout HeaderFields) {
        let named = named.subtracting(.connectionProof)
        for i in fields.lines.indices where named.contains(fields.lines[i].id) { fields.lines[i].hopByHop = true }
        guard namesOthers else { return }
        for i in fields.lines.indices where fields.lines[i].id == .connection {
            var options = ListElements(fields.lines[i].value)
            while let option = options.next(bytes) { markOthers(option, bytes, &fields) }
        }
    }

    private func markOthers(_ option: Range<Int>, _ bytes: Span<UInt8>, _ fields: inout HeaderFields) {
        for i in fields.lines.indices where fields.lines[i].id == .other {
            if equalsIgnoringCase(bytes, option, bytes, fields.lines[i].name) { fields.lines[i].hopByHop = true }
        }
    }
}

/// The elements of a comma-separated list, trimmed; empty ones are skipped (RFC 9110 §5.6.1.2).
struct ListElements {
    private var position: Int
    private let end: Int

    init(_ value: Range<Int>) {
        position = value.lowerBound
        end = value.upperBound
    }

    mutating func next(_ bytes: Span<UInt8>) -> Range<Int>? {
        while position < end {
            while position < end, isBlank(bytes[position]) { position += 1 }
            let start = position
            while position < end, bytes[position] != ASCII.comma { position += 1 }
            var last = position
            position = min(position + 1, end)
            while last > start, isBlank(bytes[last - 1]) { last -= 1 }
            if last > start { return start..<last }
        }
        return nil
    }
}
