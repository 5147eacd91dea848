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
/// A tree of objects would cost an allocation a value; these are two blocks of memory that are used again for every
/// reply. What is read holds until the reader goes on to the next reply, so nobody keeps it. The blocks are kept by hand:
/// a decision reads nine replies, and arrays in an object are checked at run time with each look at them.
@safe
package final class Reply {
    private var nodes: UnsafeMutablePointer<ReplyNode>
    private var nodeCount = 0
    /// How many values are shown. Of a part of what several share: from which on they stand `shift` places further back,
    /// and from which on they are those at the end, that all share.
    private var shownCount = 0
    private var shiftedFrom = Int.max
    private var shift = 0
    private var tailFrom = 0
    private var tailStart = 0
    private var nodesAllocated: Int
    private var storage: UnsafeMutablePointer<UInt8>
    private var storageCount = 0
    private var storageAllocated: Int
    /// Why the reader must stop: what a bound or a rule was broken by.
    private(set) var violation: RedisProtocolError?
    let bounds: ReplyBounds

    /// What there is room for at first, and what one large reply may leave behind as kept memory.
    private static let valuesAtFirst = 64
    private static let valuesKept = 4_096
    private static let bytesAtFirst = 512
    private static let bytesKept = 64 << 10

    package init(bounds: ReplyBounds = ReplyBounds()) {
        self.bounds = bounds
        nodesAllocated = Self.valuesAtFirst
        storageAllocated = Self.bytesAtFirst
        unsafe nodes = .allocate(capacity: Self.valuesAtFirst)
        unsafe storage = .allocate(capacity: Self.bytesAtFirst)
    }

    deinit {
        unsafe nodes.deallocate()
        unsafe storage.deallocate()
    }

    /// Value `index`; `nil` where there is none.
    @inline(__always)
    private func node(_ index: Int) -> ReplyNode? {
        guard index >= 0, index < shownCount else { return nil }
        if index < shiftedFrom { return unsafe nodes[index] }
        return unsafe nodes[index < tailFrom ? index &+ shift : index &- tailFrom &+ tailStart]
    }

    /// The byte at `index` of all text; in bounds, because every range of a node is.
    @inline(__always)
    private func byte(_ index: Int) -> UInt8 {
        precondition(index >= 0 && index < storageCount)
        return unsafe storage[index]
    }

    /// How many values there are, nested ones included.
    package var count: Int { shownCount }

    /// The kind of value `index`; `null` where there is none.
    package func kind(_ index: Int) -> ReplyNode.Kind {
        node(index)?.kind ?? .null
    }

    /// Whether value `index` is an integer, and not one that is spelled.
    package func isInteger(_ index: Int) -> Bool { node(index)?.kind == .integer }

    /// How many elements the array at `index` has, the first of which follows at `index + 1`; `nil` for anything else.
    package func elementCount(_ index: Int) -> Int? {
        guard let node = node(index), node.kind == .array else { return nil }
        return Int(clamping: node.number)
    }

    /// The index behind value `index` and everything in it.
    package func end(of index: Int) -> Int {
        var open: Int64 = 1
        var i = max(0, index)
        while open > 0, let node = node(i) {
            open -= 1
            if node.kind == .array { open += node.number }
            i += 1
        }
        return i
    }

    /// The integer at `index`, or one that is spelled there in decimal digits; `nil` for anything else. Strict: `+5`,
    /// ` 5` and what does not fit are no integers.
    package func integer(_ index: Int) -> Int64? {
        guard let node = node(index) else { return nil }
        switch node.kind {
        case .integer: return node.number
        case .bulk, .status: return spelled(node.text)
        case .error, .null, .array: return nil
        }
    }

    private func spelled(_ text: Range<Int>) -> Int64? {
        var i = text.lowerBound
        let negative = i < text.upperBound && byte(i) == UInt8(ascii: "-")
        if negative { i += 1 }
        guard i < text.upperBound else { return nil }
        var value: Int64 = 0
        while i < text.upperBound {
            let digit = byte(i) &- 0x30
            guard digit <= 9 else { return nil }
            // On the negative side, which reaches one further.
            let (shifted, overflowed) = value.multipliedReportingOverflow(by: 10)
            let (next, overflow) = shifted.subtractingReportingOverflow(Int64(digit))
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

    /// How many bytes the text at `index` has.
    package func byteCount(_ index: Int) -> Int { node(index)?.text.count ?? 0 }

    /// The bytes of the text at `index`.
    package func bytes(_ index: Int) -> [UInt8] {
        guard let node = node(index) else { return [] }
        return node.text.map { byte($0) }
    }

    /// The first error anywhere in the reply.
    package var firstError: String? {
        for index in 0..<count where kind(index) == .error { return text(index) }
        return nil
    }

    /// Whether the text at `index` is exactly `word`.
    package func isText(_ index: Int, _ word: [UInt8]) -> Bool {
        guard let node = node(index), node.text.count == word.count else { return false }
        let start = node.text.lowerBound
        for i in word.indices where byte(start &+ i) != word[i] { return false }
        return true
    }

    /// How many more bytes of text there is room for.
    var bytesLeft: Int { bounds.bytesMax - storageCount }

    /// Whether the reply is a status of exactly these bytes.
    package func isStatus(_ word: [UInt8]) -> Bool { count == 1 && kind(0) == .status && isText(0, word) }

    // MARK: Shared out

    /// Shows one part of an array whose first and last element all parts share: from here on, the reply is an array of the
    /// first element, of the part's own, and of the last.
    ///
    /// - Parameters:
    ///   - elements: of the part, with the first and without the last.
    ///   - start: where the part's own begin, as the part before it said; `nil` for the first part.
    /// - Returns: where the next part begins.
    package func showPart(elements: Int, from start: Int?) -> Int {
        showWhole()
        precondition(kind(0) == .array && elements > 0)
        let first = end(of: 1)
        if start == nil {
            tailStart = first
            for _ in 2..<max(2, elementCount(0) ?? 0) { tailStart = end(of: tailStart) }
        }
        let start = start ?? first
        var end = start
        for _ in 1..<elements { end = self.end(of: end) }
        precondition(first <= start && start <= end && end <= tailStart)
        unsafe nodes[0].number = Int64(elements) + 1
        shift = start - first
        shiftedFrom = first
        tailFrom = end - shift
        shownCount = tailFrom + nodeCount - tailStart
        return end
    }

    private func showWhole() {
        shownCount = nodeCount
        shiftedFrom = .max
    }

    // MARK: Filled by the reader

    func clear() {
        if nodesAllocated > Self.valuesKept { resizeNodes(Self.valuesAtFirst, keeping: 0) }
        if storageAllocated > Self.bytesKept { resizeStorage(Self.bytesAtFirst, keeping: 0) }
        nodeCount = 0
        storageCount = 0
        showWhole()
    }

    /// Refuses the reply; the reader stops at the next chance.
    func refuse(_ error: RedisProtocolError) { violation = error }

    /// Adds a value. Returns whether there was room.
    func append(_ kind: ReplyNode.Kind, number: Int64 = 0, text: Span<UInt8> = Span()) -> Bool {
        guard nodeCount < bounds.valuesMax else {
            violation = .tooManyValues(max: bounds.valuesMax)
            return false
        }
        let start = storageCount
        let length = text.count
        guard length <= bounds.bytesMax - start else {
            violation = .tooManyBytes(max: bounds.bytesMax)
            return false
        }
        if length > storageAllocated - start {
            resizeStorage(max(start + length, 2 * storageAllocated), keeping: start)
        }
        if nodeCount == nodesAllocated { resizeNodes(2 * nodesAllocated, keeping: nodeCount) }
        if length > 0 {
            unsafe text.withUnsafeBufferPointer {
                guard let from = $0.baseAddress else { return }
                unsafe (storage + start).update(from: from, count: length)
            }
        }
        storageCount = start + length
        unsafe (nodes + nodeCount).initialize(
            to: ReplyNode(kind: kind, number: number, text: start..<storageCount))
        nodeCount += 1
        shownCount = nodeCount
        return true
    }

    @inline(never)
    private func resizeNodes(_ count: Int, keeping kept: Int) {
        let moved = UnsafeMutablePointer<ReplyNode>.allocate(capacity: count)
        unsafe moved.update(from: nodes, count: kept)
        unsafe nodes.deallocate()
        unsafe nodes = moved
        nodesAllocated = count
    }

    @inline(never)
    private func resizeStorage(_ count: Int, keeping kept: Int) {
        let moved = UnsafeMutablePointer<UInt8>.allocate(capacity: count)
        unsafe moved.update(from: storage, count: kept)
        unsafe storage.deallocate()
        unsafe storage = moved
        storageAllocated = count
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

    /// Whether a reply was refused for how much it holds.
    package var isOfSize: Bool {
        switch self {
        case .tooManyValues, .tooManyBytes: true
        case .malformed, .unterminatedString, .outOfStep: false
        }
    }

    package var isOfValues: Bool {
        if case .tooManyValues = self { true } else { false }
    }

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
