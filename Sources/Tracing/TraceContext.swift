// The two header fields of W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context-1/).

package import LinuxIO
import Primitives

/// `traceparent`: `00-TRACE-PARENT-FLAGS`.
package struct TraceParent: Equatable, Sendable {
    package var trace: WideID
    /// The span of whoever sends it.
    package var parent: UInt64
    /// Whether whoever sends it may record the trace.
    package var isSampled: Bool

    package init(trace: WideID, parent: UInt64, isSampled: Bool) {
        self.trace = trace
        self.parent = parent
        self.isSampled = isSampled
    }

    /// Version, trace, parent and flags with their hyphens.
    package static let length = 55

    /// What a value says; `nil`: nothing that counts, and the trace begins anew (§3.2.2.6, §4.3).
    ///
    /// A version that is not known yet is read as far as this one goes, and may have more behind another hyphen (§3.2.4).
    package init?(_ value: Span<UInt8>) {
        guard value.count >= Self.length, value[2] == Self.hyphen, value[35] == Self.hyphen, value[52] == Self.hyphen,
            let version = Self.number(value, 0..<2), version != 0xff,
            value.count == Self.length || version > 0 && value[Self.length] == Self.hyphen,
            let high = Self.number(value, 3..<19), let low = Self.number(value, 19..<35),
            let parent = Self.number(value, 36..<52), parent != 0, let flags = Self.number(value, 53..<55)
        else { return nil }
        trace = WideID(high: high, low: low)
        guard !trace.isZero else { return nil }
        self.parent = parent
        isSampled = flags & 1 == 1
    }

    private static var hyphen: UInt8 { UInt8(ascii: "-") }

    /// Lower case alone (§3.2.1): what is written otherwise is another's mistake, and not passed on.
    private static func number(_ value: Span<UInt8>, _ range: Range<Int>) -> UInt64? {
        var number: UInt64 = 0
        for i in range {
            let digit: UInt8
            switch value[i] {
            case 0x30...0x39: digit = value[i] &- 0x30
            case 0x61...0x66: digit = value[i] &- 0x57
            default: return nil
            }
            number = number << 4 | UInt64(digit)
        }
        return number
    }
}

extension ByteBuffer {
    package mutating func append(_ parent: TraceParent) {
        append("00-")
        append(parent.trace)
        append("-")
        append(narrow: parent.parent)
        append(parent.isSampled ? "-01" : "-00")
    }
}

/// `tracestate`: what each vendor wants to be told again. It is passed on as it came, or not at all.
package struct TraceState: Sendable {
    /// §3.3.1.1.
    package static let membersMax = 32
    /// §3.3.1.3.1, §3.3.1.3.2.
    private static let keyBytesMax = 256
    private static let tenantBytesMax = 241
    private static let systemBytesMax = 14
    private static let valueBytesMax = 256

    private var members = 0
    /// Whether all that was read may be passed on.
    package private(set) var isValid = true

    package init() {}

    /// Reads a line of the field; several lines are one list.
    package mutating func read(_ line: Span<UInt8>) {
        var start = 0
        while isValid, start <= line.count {
            var end = start
            while end < line.count, line[end] != UInt8(ascii: ",") { end += 1 }
            readMember(line, start, end)
            start = end + 1
        }
    }

    private mutating func readMember(_ line: Span<UInt8>, _ lower: Int, _ upper: Int) {
        var (start, end) = (lower, upper)
        while start < end, Self.isBlank(line[start]) { start += 1 }
        while end > start, Self.isBlank(line[end - 1]) { end -= 1 }
        // Empty members are allowed (§3.3.1.2).
        guard start < end else { return }
        members += 1
        var equals = start
        while equals < end, line[equals] != UInt8(ascii: "=") { equals += 1 }
        isValid =
            members <= Self.membersMax && equals < end && Self.isKey(line.extracting(start..<equals))
            && Self.isValue(line.extracting((equals + 1)..<end))
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

    private static func isKey(_ key: Span<UInt8>) -> Bool {
        var at: Int?
        for i in key.indices where key[i] == UInt8(ascii: "@") {
            guard at == nil else { return false }
            at = i
        }
        guard let at else { return isName(key, max: keyBytesMax, mayBeginWithDigit: false) }
        return isName(key.extracting(0..<at), max: tenantBytesMax, mayBeginWithDigit: true)
            && isName(key.extracting((at + 1)..<key.count), max: systemBytesMax, mayBeginWithDigit: false)
    }

    private static func isName(_ name: Span<UInt8>, max: Int, mayBeginWithDigit: Bool) -> Bool {
        guard name.count > 0, name.count <= max else { return false }
        for i in name.indices {
            switch name[i] {
            case 0x61...0x7a: continue
            case 0x30...0x39 where i > 0 || mayBeginWithDigit: continue
            case UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "*"), UInt8(ascii: "/"):
                if i > 0 { continue }
                return false
            default: return false
            }
        }
        return true
    }

    private static func isValue(_ value: Span<UInt8>) -> Bool {
        guard value.count > 0, value.count <= valueBytesMax else { return false }
        for i in value.indices {
            guard value[i] >= 0x20, value[i] <= 0x7e, value[i] != UInt8(ascii: ","), value[i] != UInt8(ascii: "=")
            else { return false }
        }
        return true
    }
}
