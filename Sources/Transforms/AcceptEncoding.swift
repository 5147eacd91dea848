/// Whether a client wants gzip (RFC 9110 §12.5.3), read from one field after the other.
package struct AcceptEncoding: Sendable {
    /// Thousandths; -1 where it is not named.
    private var gzip = -1
    private var any = -1
    private var identity = -1

    package init() {}

    /// A client that rather has the content as it is gets it so.
    package var wantsGzip: Bool {
        let quality = gzip >= 0 ? gzip : any
        return quality > 0 && quality >= identity
    }

    package mutating func read(_ value: Span<UInt8>) {
        var start = 0
        while start < value.count {
            var end = start
            while end < value.count, value[end] != UInt8(ascii: ",") { end += 1 }
            readElement(value.extracting(start..<end))
            start = end + 1
        }
    }

    private mutating func readElement(_ element: Span<UInt8>) {
        var i = 0
        while i < element.count, Self.isBlank(element[i]) { i += 1 }
        let start = i
        while i < element.count, !Self.isBlank(element[i]), element[i] != UInt8(ascii: ";") { i += 1 }
        let name = element.extracting(start..<i)
        guard let quality = Self.quality(element, from: i) else { return }
        if Self.equals(name, "gzip") || Self.equals(name, "x-gzip") {
            gzip = max(gzip, quality)
        } else if Self.equals(name, "*") {
            any = quality
        } else if Self.equals(name, "identity") {
            identity = quality
        }
    }

    /// 1000 where there is no weight; `nil` where it is malformed, and the element counts for nothing.
    private static func quality(_ element: Span<UInt8>, from start: Int) -> Int? {
        var i = start
        func skip() { while i < element.count, isBlank(element[i]) { i += 1 } }
        skip()
        guard i < element.count else { return 1_000 }
        guard element[i] == UInt8(ascii: ";") else { return nil }
        i += 1
        skip()
        guard i + 2 < element.count, element[i] | 0x20 == UInt8(ascii: "q"), element[i + 1] == UInt8(ascii: "=") else {
            return nil
        }
        i += 2
        guard element[i] == 0x30 || element[i] == 0x31 else { return nil }
        var value = Int(element[i] - 0x30) * 1_000
        i += 1
        if i < element.count, element[i] == UInt8(ascii: ".") {
            i += 1
            var unit = 100
            while i < element.count, element[i] >= 0x30, element[i] <= 0x39 {
                guard unit > 0 else { return nil }
                value += Int(element[i] - 0x30) * unit
                unit /= 10
                i += 1
            }
        }
        skip()
        return i == element.count && value <= 1_000 ? value : nil
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

    private static func equals(_ bytes: Span<UInt8>, _ word: StaticString) -> Bool {
        guard bytes.count == word.utf8CodeUnitCount else { return false }
        var i = 0
        for byte in word.description.utf8 {
            let own = bytes[i] >= 0x41 && bytes[i] <= 0x5a ? bytes[i] | 0x20 : bytes[i]
            if own != byte { return false }
            i += 1
        }
        return true
    }
}

/// Media types by pattern: `text/*`, `application/json`.
package struct MediaTypes: Hashable, Sendable {
    /// In lower case; a family without its `*`.
    private let types: [[UInt8]]

    package init(_ types: [String]) {
        self.types = types.map { Array(($0.hasSuffix("/*") ? String($0.dropLast()) : $0).lowercased().utf8) }
    }

    /// Whether the value of a Content-Type is one of them, whatever its parameters.
    package func contains(_ value: Span<UInt8>) -> Bool {
        var end = 0
        while end < value.count, value[end] != UInt8(ascii: ";"), value[end] != 0x20, value[end] != 0x09 { end += 1 }
        return types.contains { type in
            let isFamily = type.last == UInt8(ascii: "/")
            guard isFamily ? end > type.count : end == type.count else { return false }
            for i in type.indices {
                let byte = value[i] >= 0x41 && value[i] <= 0x5a ? value[i] | 0x20 : value[i]
                if byte != type[i] { return false }
            }
            return true
        }
    }
}
