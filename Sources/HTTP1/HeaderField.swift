/// One field line as offsets into the bytes of its head. 24 bytes.
public struct HeaderField: Equatable, Sendable {
    private var lineStart: Int32
    private var nameEnd: Int32
    private var valueStart: Int32
    private var valueEnd: Int32
    private var lineEnd: Int32
    public let id: FieldName
    /// Whether the field stays on this connection: one of `FieldSet.hopByHop`, named in `Connection`, or in a request
    /// a known name with `_`, `.` or the like for `-`, which some backends take for the real one.
    public internal(set) var hopByHop: Bool

    /// `HeadLimits` keeps all offsets within 32 bits.
    @inline(__always)
    init(line: Range<Int>, nameEnd: Int, value: Range<Int>, id: FieldName, hopByHop: Bool) {
        lineStart = Int32(truncatingIfNeeded: line.lowerBound)
        self.nameEnd = Int32(truncatingIfNeeded: nameEnd)
        valueStart = Int32(truncatingIfNeeded: value.lowerBound)
        valueEnd = Int32(truncatingIfNeeded: value.upperBound)
        lineEnd = Int32(truncatingIfNeeded: line.upperBound)
        self.id = id
        self.hopByHop = hopByHop
    }

    public var name: Range<Int> { Int(lineStart)..<Int(nameEnd) }
    /// Without the whitespace around it; may be empty.
    public var value: Range<Int> { Int(valueStart)..<Int(valueEnd) }
    /// The whole line with its CR LF.
    public var line: Range<Int> { Int(lineStart)..<Int(lineEnd) }
}

/// The field lines of a head, in the order in which they came, and what was learned about them on the way.
public struct HeaderFields: Sendable {
    var lines: [HeaderField] = []
    /// The known names that occur.
    public internal(set) var present = FieldSet()
    /// The known names that occur more than once.
    public internal(set) var repeated = FieldSet()

    public init() {}

    /// Forgets the fields and keeps their storage.
    mutating func removeAll() {
        lines.removeAll(keepingCapacity: true)
        present = FieldSet()
        repeated = FieldSet()
    }

    @inlinable @inline(__always)
    public func contains(_ name: FieldName) -> Bool { present.contains(name) }

    /// The first field of that name; nil for `other`.
    public func first(_ name: FieldName) -> HeaderField? {
        guard name != .other, present.contains(name) else { return nil }
        for i in lines.indices where lines[i].id == name { return lines[i] }
        return nil
    }

    /// The first field of that name at or behind position `start`, compared without regard to case. For names that the
    /// configuration chooses; `bytes` are those of the head.
    public func first(named name: Span<UInt8>, in bytes: Span<UInt8>, from start: Int = 0) -> Int? {
        guard start >= 0 else { return nil }
        var i = start
        while i < lines.count {
            if equalsIgnoringCase(name, name.indices, bytes, lines[i].name) { return i }
            i += 1
        }
        return nil
    }
}

extension HeaderFields: RandomAccessCollection {
    public var startIndex: Int { 0 }
    public var endIndex: Int { lines.count }
    public subscript(position: Int) -> HeaderField { lines[position] }
}
