// From the text of a pattern to its tree.

indirect enum PatternNode {
    case bytes(ByteSet)
    case sequence([PatternNode])
    case either([PatternNode])
    case group(Int, PatternNode)
    /// `most`: `nil` for any number.
    case repeated(PatternNode, least: Int, most: Int?, greedy: Bool)
}

struct PatternParser {
    private let text: [UInt8]
    private var position = 0
    private var depth = 0
    private(set) var groups = 0

    init(_ text: [UInt8]) { self.text = text }

    mutating func parse() throws(TransformError) -> PatternNode {
        let node = try alternatives()
        guard position == text.count else { throw error("a `)` without its `(`") }
        return node
    }

    private func error(_ message: String) -> TransformError { TransformError(message: message) }

    private var byte: UInt8? { position < text.count ? text[position] : nil }

    private mutating func take(_ wanted: UInt8) -> Bool {
        guard byte == wanted else { return false }
        position += 1
        return true
    }

    private mutating func alternatives() throws(TransformError) -> PatternNode {
        var nodes = [try sequence()]
        while take(UInt8(ascii: "|")) { nodes.append(try sequence()) }
        return nodes.count == 1 ? nodes[0] : .either(nodes)
    }

    private mutating func sequence() throws(TransformError) -> PatternNode {
        var nodes: [PatternNode] = []
        while let byte, byte != UInt8(ascii: "|"), byte != UInt8(ascii: ")") { nodes.append(try repetition()) }
        return .sequence(nodes)
    }

    private mutating func repetition() throws(TransformError) -> PatternNode {
        let start = position
        var node = try atom()
        while let (least, most) = try count() {
            // `(a*)*` has many ways through one text; each is followed once all the same, so that it costs nothing.
            let greedy = !take(UInt8(ascii: "?"))
            node = .repeated(node, least: least, most: most, greedy: greedy)
            guard position - start < text.count else { break }
        }
        return node
    }

    /// The quantifier at the position; `nil` where there is none.
    private mutating func count() throws(TransformError) -> (Int, Int?)? {
        if take(UInt8(ascii: "*")) { return (0, nil) }
        if take(UInt8(ascii: "+")) { return (1, nil) }
        if take(UInt8(ascii: "?")) { return (0, 1) }
        guard take(UInt8(ascii: "{")) else { return nil }
        guard let least = number() else {
            throw error("`{` without a number; write {2}, {2,} or {2,4}, or \\{ for the sign")
        }
        var most: Int? = least
        if take(UInt8(ascii: ",")) { most = byte == UInt8(ascii: "}") ? nil : number() ?? -1 }
        guard take(UInt8(ascii: "}")), (most ?? least) >= least, (most ?? least) <= PathPattern.stepsMax else {
            throw error("a count that is none; write {2}, {2,} or {2,4}")
        }
        return (least, most)
    }

    private mutating func number() -> Int? {
        var value = 0
        let start = position
        while let byte, byte >= 0x30, byte <= 0x39, value <= PathPattern.stepsMax {
            value = value * 10 + Int(byte - 0x30)
            position += 1
        }
        return position > start ? value : nil
    }

    private mutating func atom() throws(TransformError) -> PatternNode {
        guard let first = byte else { throw error("ends in the middle") }
        position += 1
        switch first {
        case UInt8(ascii: "."): return .bytes(.all)
        case UInt8(ascii: "["): return .bytes(try byteClass())
        case UInt8(ascii: "("): return try group()
        case UInt8(ascii: "\\"): return .bytes(try escape())
        case UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "?"), UInt8(ascii: "{"):
            throw error("\(shown(first)) repeats nothing; write \\\(shown(first)) for the sign")
        case UInt8(ascii: "^"), UInt8(ascii: "$"):
            throw error(
                "a pattern matches the whole path; leave out \(shown(first)), or write \\\(shown(first)) for the sign")
        default: return .bytes(ByteSet(first...first))
        }
    }

    private mutating func group() throws(TransformError) -> PatternNode {
        depth += 1
        defer { depth -= 1 }
        guard depth <= PathPattern.depthMax else { throw error("groups more than \(PathPattern.depthMax) deep") }
        var number: Int?
        if take(UInt8(ascii: "?")) {
            guard take(UInt8(ascii: ":")) else { throw error("`(?` knows `(?:` alone") }
        } else {
            groups += 1
            guard groups <= PathPattern.groupsMax else {
                throw error("more than \(PathPattern.groupsMax) groups; write (?:…) for those that capture nothing")
            }
            number = groups
        }
        let inner = try alternatives()
        guard take(UInt8(ascii: ")")) else { throw error("a `(` without its `)`") }
        return number.map { .group($0, inner) } ?? inner
    }

    private mutating func escape() throws(TransformError) -> ByteSet {
        guard let byte else { throw error("ends in a backslash") }
        position += 1
        switch byte {
        case UInt8(ascii: "d"): return .digits
        case UInt8(ascii: "D"): return ByteSet.digits.inverted
        case UInt8(ascii: "w"): return .word
        case UInt8(ascii: "W"): return ByteSet.word.inverted
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a:
            // `\b`, `\s`, `\1`: what others mean by them is not here.
            throw error("\\\(shown(byte)) is not known; known are \\d, \\D, \\w, \\W and \\ before a sign")
        default: return ByteSet(byte...byte)
        }
    }

    private mutating func byteClass() throws(TransformError) -> ByteSet {
        var set = ByteSet()
        let isInverted = take(UInt8(ascii: "^"))
        var isEmpty = true
        while true {
            guard let first = byte else { throw error("a `[` without its `]`") }
            position += 1
            if first == UInt8(ascii: "]"), !isEmpty { return isInverted ? set.inverted : set }
            isEmpty = false
            if first == UInt8(ascii: "\\") {
                set.formUnion(try escape())
                continue
            }
            guard byte == UInt8(ascii: "-"), position + 1 < text.count, text[position + 1] != UInt8(ascii: "]") else {
                set.insert(first...first)
                continue
            }
            position += 1
            guard let last = byte, last >= first, last != UInt8(ascii: "\\") else {
                throw error("a range of a class that is none; write [a-z]")
            }
            position += 1
            set.insert(first...last)
        }
    }

    private func shown(_ byte: UInt8) -> String { String(UnicodeScalar(byte)) }
}
