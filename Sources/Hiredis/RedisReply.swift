/// One whole reply of the server, flat: the values in the order in which they came, an array before its elements.
///
/// A tree of objects would cost an allocation a value; this is two arrays that are used again for every reply. What is
/// read from it holds until the reader goes on to the next reply, so nobody keeps it.
package final class RedisReply {
    package enum Kind: UInt8, Sendable { case string, array, integer, null, status, error }

    struct Node {
        var kind: Kind
        /// The number of an `integer`; the number of elements of an `array`.
        var value: Int64
        /// Where the text of a `string`, `status` or `error` lies.
        var start: Int
        var end: Int
    }

    let bounds: RedisReplyBounds
    private var nodes: [Node] = []
    private var storage: [UInt8] = []
    /// Why the reader must stop, where a bound or a rule was broken by what this reply holds.
    private(set) var violation: RedisProtocolError?

    init(bounds: RedisReplyBounds) { self.bounds = bounds }

    /// How many values there are, nested ones included.
    package var count: Int { nodes.count }

    /// The kind of value `index`; `nil` behind the last one.
    package func kind(_ index: Int) -> Kind? { nodes.indices.contains(index) ? nodes[index].kind : nil }

    /// The number that value `index` is.
    package func integer(_ index: Int) -> Int64? {
        guard kind(index) == .integer else { return nil }
        return nodes[index].value
    }

    /// How many elements the array at `index` has. The first follows at `index + 1`.
    package func elementCount(_ index: Int) -> Int? {
        guard kind(index) == .array else { return nil }
        return Int(nodes[index].value)
    }

    /// The index behind value `index` and everything in it.
    package func end(of index: Int) -> Int {
        var pending = 1
        var i = index
        while pending > 0, i < nodes.count {
            pending -= 1
            if nodes[i].kind == .array { pending += Int(nodes[i].value) }
            i += 1
        }
        return i
    }

    /// The length of the text at `index`; 0 for what has none.
    package func byteCount(_ index: Int) -> Int {
        nodes.indices.contains(index) ? nodes[index].end - nodes[index].start : 0
    }

    /// Lets `body` read the text at `index`; an empty one where there is none.
    package func withBytes<Result>(_ index: Int, _ body: (Span<UInt8>) -> Result) -> Result {
        guard nodes.indices.contains(index) else { return body(Span()) }
        let storage = storage
        return body(storage.span.extracting(nodes[index].start..<nodes[index].end))
    }

    /// The text at `index` as a copy.
    package func bytes(_ index: Int) -> [UInt8] {
        guard nodes.indices.contains(index) else { return [] }
        return Array(storage[nodes[index].start..<nodes[index].end])
    }

    /// The text at `index`, invalid UTF-8 replaced.
    package func text(_ index: Int) -> String { String(decoding: bytes(index), as: UTF8.self) }

    /// Whether the text at `index` is exactly this.
    package func equals(_ index: Int, _ text: StaticString) -> Bool {
        guard nodes.indices.contains(index), byteCount(index) == text.utf8CodeUnitCount else { return false }
        let start = nodes[index].start
        return text.withUTF8Buffer { expected in
            for i in expected.indices {
                if unsafe storage[start + i] != expected[i] { return false }
            }
            return true
        }
    }

    /// The whole number that the text at `index` spells in decimal digits, with a sign at most in front.
    package func decimal(_ index: Int) -> Int64? {
        guard let kind = kind(index) else { return nil }
        switch kind {
        case .integer: return nodes[index].value
        case .array, .null: return nil
        case .string, .status, .error: break
        }
        var i = nodes[index].start
        let end = nodes[index].end
        let negative = i < end && storage[i] == UInt8(ascii: "-")
        if negative { i += 1 }
        guard i < end else { return nil }
        var value: Int64 = 0
        while i < end {
            let digit = storage[i]
            guard digit >= 0x30, digit <= 0x39 else { return nil }
            // Towards the negative side, which reaches one further.
            let (shifted, overflowed) = value.multipliedReportingOverflow(by: 10)
            let (next, overflow) = shifted.subtractingReportingOverflow(Int64(digit - 0x30))
            if overflowed || overflow { return nil }
            value = next
            i += 1
        }
        if negative { return value }
        return value == .min ? nil : -value
    }

    // MARK: Filled by the reader

    func clear() {
        nodes.removeAll(keepingCapacity: true)
        storage.removeAll(keepingCapacity: true)
    }

    /// Refuses the reply; the reader stops at the next chance.
    func refuse(_ error: RedisProtocolError) { violation = error }

    /// Whether there was room for one more value.
    func append(_ kind: Kind, value: Int64 = 0) -> Bool {
        guard nodes.count < bounds.elementsMax else {
            violation = .tooManyElements(max: bounds.elementsMax)
            return false
        }
        nodes.append(Node(kind: kind, value: value, start: storage.count, end: storage.count))
        return true
    }

    /// Whether there was room for one more value and its text.
    @unsafe
    func append(_ kind: Kind, text: UnsafeBufferPointer<UInt8>) -> Bool {
        guard text.count <= bounds.bytesMax - storage.count else {
            violation = .tooManyBytes(max: bounds.bytesMax)
            return false
        }
        guard append(kind) else { return false }
        unsafe storage.append(contentsOf: text)
        nodes[nodes.count - 1].end = storage.count
        return true
    }
}

/// How much one reply may hold. A server that sends more is broken or is no Redis, and must not fill our memory.
package struct RedisReplyBounds: Sendable {
    /// Values in one reply, nested ones included: room for a hash of 32,000 fields.
    package var elementsMax: Int
    /// Bytes of text in one reply, and bytes of a reply that has not wholly arrived.
    package var bytesMax: Int

    package init(elementsMax: Int = 65_536, bytesMax: Int = 4 << 20) {
        self.elementsMax = elementsMax
        self.bytesMax = bytesMax
    }
}

/// What makes a byte stream unreadable as RESP2. The connection has to be closed: nobody knows where the next reply
/// would begin.
package enum RedisProtocolError: Error, Equatable, Sendable, CustomStringConvertible {
    /// In the words of hiredis.
    case malformed(String)
    /// A bulk string that does not end in CR LF where its length says.
    case unterminatedString
    case tooManyElements(max: Int)
    case tooManyBytes(max: Int)

    package var description: String {
        switch self {
        case .malformed(let reason): "malformed reply: \(reason)"
        case .unterminatedString: "malformed reply: a string that is longer than its length"
        case .tooManyElements(let max): "a reply of more than \(max) values"
        case .tooManyBytes(let max): "a reply of more than \(max) bytes"
        }
    }
}
