/// One value of a reply.
package struct ReplyNode: Equatable, Sendable {
    package enum Kind: UInt8, Sendable {
        case status, error, integer, bulk, null, array
    }

    package var kind: Kind
    /// The value of an integer; the number of elements of an array.
    package var number: Int64
    /// Where the text of a status, an error or a bulk string lies.
    package var text: Range<Int>
}

/// A whole reply, flat: its values in the order of their arrival, an array before what it holds.
///
/// A tree of objects would cost an allocation a value; these are two arrays that are used again for every reply. What
/// is read holds until the reader goes on to the next reply, so nobody keeps it.
package final class Reply {
    /// All that changes, in one place: each call is one access to it.
    fileprivate struct Contents {
        var nodes: [ReplyNode] = []
        var storage: [UInt8] = []
        /// Why the reader must stop: what a bound or a rule was broken by.
        var violation: RedisProtocolError?
    }

    private var contents = Contents()
    let bounds: ReplyBounds

    /// What one large reply may leave behind as kept memory.
    fileprivate static let valuesKept = 4_096
    fileprivate static let bytesKept = 64 << 10

    package init(bounds: ReplyBounds = ReplyBounds()) { self.bounds = bounds }

    package var nodes: [ReplyNode] { contents.nodes }
    private var storage: [UInt8] { contents.storage }
    var violation: RedisProtocolError? { contents.violation }

    /// How many values there are, nested ones included.
    package var count: Int { nodes.count }

    /// The kind of value `index`; `null` where there is none.
    package func kind(_ index: Int) -> ReplyNode.Kind {
        let nodes = self.nodes
        return nodes.indices.contains(index) ? nodes[index].kind : .null
    }

    /// How many elements the array at `index` has, the first of which follows at `index + 1`; `nil` for anything else.
    package func elementCount(_ index: Int) -> Int? {
        kind(index) == .array ? Int(clamping: nodes[index].number) : nil
    }

    /// The index behind value `index` and everything in it.
    package func end(of index: Int) -> Int {
        var open: Int64 = 1
        var i = max(0, index)
        while open > 0, i < nodes.count {
            open -= 1
            if nodes[i].kind == .array { open += nodes[i].number }
            i += 1
        }
        return i
    }

    /// The integer at `index`, or one that is spelled there in decimal digits; `nil` for anything else. Strict: `+5`,
    /// ` 5` and what does not fit are no integers.
    package func integer(_ index: Int) -> Int64? {
        let nodes = self.nodes
        guard nodes.indices.contains(index) else { return nil }
        switch nodes[index].kind {
        case .integer: return nodes[index].number
        case .bulk, .status: return spelled(nodes[index].text)
        case .error, .null, .array: return nil
        }
    }

    private func spelled(_ text: Range<Int>) -> Int64? {
        let storage = self.storage
        var i = text.lowerBound
        let negative = i < text.upperBound && storage[i] == UInt8(ascii: "-")
        if negative { i += 1 }
        guard i < text.upperBound else { return nil }
        var value: Int64 = 0
        while i < text.upperBound {
            guard storage[i] >= 0x30, storage[i] <= 0x39 else { return nil }
            // On the negative side, which reaches one further.
            let (shifted, overflowed) = value.multipliedReportingOverflow(by: 10)
            let (next, overflow) = shifted.subtractingReportingOverflow(Int64(storage[i] - 0x30))
            if overflowed || overflow { return nil }
            value = next
            i += 1
        }
        if negative { return value }
        return value == .min ? nil : -value
    }

    /// The text at `index`, invalid UTF-8 replaced; empty for integers, arrays and what is absent.
    package func text(_ index: Int) -> String {
        String(decoding: bytes(index), as: UTF8.self)
    }

    /// The bytes of the text at `index`.
    package func bytes(_ index: Int) -> ArraySlice<UInt8> {
        nodes.indices.contains(index) ? storage[nodes[index].text] : []
    }

    /// The first error anywhere in the reply.
    package var firstError: String? {
        (0..<count).first { kind($0) == .error }.map { text($0) }
    }

    /// Whether the text at `index` is exactly `word`.
    package func isText(_ index: Int, _ word: [UInt8]) -> Bool {
        let (nodes, storage) = (self.nodes, self.storage)
        guard nodes.indices.contains(index), nodes[index].text.count == word.count else { return false }
        let start = nodes[index].text.lowerBound
        for i in word.indices where storage[start + i] != word[i] { return false }
        return true
    }

    /// Whether the reply is a status of exactly these bytes.
    package func isStatus(_ word: [UInt8]) -> Bool { Self.isStatus(contents, word) }

    private static func isStatus(_ contents: Contents, _ word: [UInt8]) -> Bool {
        guard contents.nodes.count == 1, contents.nodes[0].kind == .status,
            contents.storage.count == word.count
        else { return false }
        for i in word.indices where contents.storage[i] != word[i] { return false }
        return true
    }

    // MARK: Filled by the reader

    func clear() { Self.clear(&contents) }

    /// Out of line, so that it is one access.
    @inline(never)
    private static func clear(_ contents: inout Contents) { contents.clear() }

    /// Refuses the reply; the reader stops at the next chance.
    func refuse(_ error: RedisProtocolError) { contents.violation = error }

    /// Adds a value. Returns whether there was room.
    func append(_ kind: ReplyNode.Kind, number: Int64 = 0, text: Span<UInt8> = Span()) -> Bool {
        Self.append(&contents, kind, number, text, bounds)
    }

    @inline(never)
    private static func append(
        _ contents: inout Contents, _ kind: ReplyNode.Kind, _ number: Int64, _ text: Span<UInt8>, _ bounds: ReplyBounds
    ) -> Bool {
        contents.append(kind, number: number, text: text, bounds)
    }
}

extension Reply.Contents {
    fileprivate mutating func clear() {
        if !nodes.isEmpty { nodes.removeAll(keepingCapacity: nodes.capacity <= Reply.valuesKept) }
        if !storage.isEmpty { storage.removeAll(keepingCapacity: storage.capacity <= Reply.bytesKept) }
    }

    @inline(__always)
    fileprivate mutating func append(
        _ kind: ReplyNode.Kind, number: Int64, text: Span<UInt8>, _ bounds: ReplyBounds
    ) -> Bool {
        guard nodes.count < bounds.valuesMax else {
            violation = .tooManyValues(max: bounds.valuesMax)
            return false
        }
        let start = storage.count
        guard text.count <= bounds.bytesMax - start else {
            violation = .tooManyBytes(max: bounds.bytesMax)
            return false
        }
        if !text.isEmpty { unsafe text.withUnsafeBufferPointer { unsafe storage.append(contentsOf: $0) } }
        nodes.append(ReplyNode(kind: kind, number: number, text: start..<storage.count))
        return true
    }
}

/// How much one reply may hold. A server that sends more is broken or is no Redis, and must not fill our memory.
package struct ReplyBounds: Sendable {
    /// Values in one reply, nested ones included: room for a hash of half a million fields.
    package var valuesMax: Int
    /// Bytes of text in one reply, and bytes of a reply that has not wholly arrived.
    package var bytesMax: Int

    package init(valuesMax: Int = 1 << 20, bytesMax: Int = 16 << 20) {
        self.valuesMax = valuesMax
        self.bytesMax = bytesMax
    }
}

/// What makes a byte stream unreadable. The connection has to be closed: nobody knows where the next reply begins.
package enum RedisProtocolError: Error, Equatable, Sendable, CustomStringConvertible {
    /// No RESP2, in the words of hiredis.
    case malformed(String)
    /// A bulk string that does not end in CR LF where its length says.
    case unterminatedString
    case tooManyValues(max: Int)
    case tooManyBytes(max: Int)
    /// A good reply that cannot be the answer to what was asked.
    case outOfStep(String)

    package var description: String {
        switch self {
        case .malformed(let reason): reason
        case .unterminatedString: "a string that does not end where its length says"
        case .tooManyValues(let max): "a reply of more than \(max) values"
        case .tooManyBytes(let max): "a reply of more than \(max) bytes"
        case .outOfStep(let reason): reason
        }
    }
}
