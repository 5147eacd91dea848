// Fields that the gateway sets itself under names of the configuration's choice, and therefore never passes on as they came.

import LinuxIO
import Primitives

/// Field names, to be compared as backends may read them: CGI, WSGI and PHP know no case and give `X_User`, `X.User` and
/// `X-User` to the application under one name, so whoever checks one of them must look for all.
package struct GuardedNames: Sendable {
    private let names: [[UInt8]]

    package static let none = GuardedNames([String]())

    package init(_ names: [String]) { self.names = names.map { $0.utf8.map(Self.folded) } }

    /// The names of all of them.
    package init(_ all: [GuardedNames]) { names = all.flatMap(\.names) }

    package var isEmpty: Bool { names.isEmpty }

    /// In lower case, with `-` for all that is neither letter nor digit.
    @inline(__always)
    private static func folded(_ byte: UInt8) -> UInt8 {
        switch byte {
        case 0x30...0x39, 0x61...0x7a: byte
        case 0x41...0x5a: byte | 0x20
        default: UInt8(ascii: "-")
        }
    }

    func contains(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Bool {
        for index in names.indices where names[index].count == range.count {
            var i = 0
            while i < range.count, Self.folded(bytes[range.lowerBound + i]) == names[index][i] { i += 1 }
            if i == range.count { return true }
        }
        return false
    }
}

extension RequestHead {
    /// Marks the fields of these names as not to be passed on. `bytes` are those that were parsed.
    package mutating func keepBack(_ names: GuardedNames, _ bytes: Span<UInt8>) {
        for index in fields.lines.indices where names.contains(bytes, fields.lines[index].name) {
            fields.lines[index].hopByHop = true
        }
    }
}

/// A parameter of the query, as offsets into the head's bytes.
package struct QueryParameter: Equatable, Sendable {
    package var value: Range<Int>
    /// What to leave out so that the rest is a query without it.
    package var cut: Range<Int>
    /// Whether it stands there more than once.
    package var isRepeated = false
}

extension RequestHead {
    /// The first parameter of that name. Names are compared decoded: `api%5Fkey` is `api_key` to a backend.
    package func parameter(_ name: [UInt8], in bytes: Span<UInt8>) -> QueryParameter? {
        let end = pathAndQuery.upperBound
        var start = path.upperBound + 1
        var found: QueryParameter?
        while start <= end, start > pathAndQuery.lowerBound {
            var stop = start
            while stop < end, bytes[stop] != UInt8(ascii: "&") { stop += 1 }
            if let value = Self.value(of: name, bytes, start..<stop) {
                if found != nil {
                    found?.isRepeated = true
                    return found
                }
                // `?k=v` goes with its mark, `?k=v&a=b` keeps it, `&k=v` goes with its ampersand.
                let isFirst = start == path.upperBound + 1
                let cut = isFirst && stop < end ? start..<(stop + 1) : (start - 1)..<stop
                found = QueryParameter(value: value, cut: cut)
            }
            start = stop + 1
        }
        return found
    }

    private static func value(of name: [UInt8], _ bytes: Span<UInt8>, _ pair: Range<Int>) -> Range<Int>? {
        var place = pair.lowerBound
        for wanted in name {
            guard place < pair.upperBound, decodedByte(bytes, &place, pair.upperBound) == wanted else { return nil }
        }
        guard place < pair.upperBound, bytes[place] == UInt8(ascii: "=") else { return nil }
        return (place + 1)..<pair.upperBound
    }

    /// A parameter's value without its escapes; `nil` where it has none. A `+` stays: keys in base64 have them, and spaces
    /// none has.
    package static func decodedParameter(_ bytes: Span<UInt8>, _ value: Range<Int>) -> [UInt8]? {
        guard value.contains(where: { bytes[$0] == UInt8(ascii: "%") }) else { return nil }
        var decoded: [UInt8] = []
        var place = value.lowerBound
        while place < value.upperBound { decoded.append(decodedByte(bytes, &place, value.upperBound)) }
        return decoded
    }

    /// The byte that stands at `place`, and moves behind it. What is no escape stands for itself, as it does to backends.
    private static func decodedByte(_ bytes: Span<UInt8>, _ place: inout Int, _ end: Int) -> UInt8 {
        let byte = bytes[place]
        place += 1
        guard byte == UInt8(ascii: "%"), place + 1 < end, let high = hexValue(bytes[place]),
            let low = hexValue(bytes[place + 1])
        else { return byte }
        place += 2
        return high << 4 | low
    }
}
