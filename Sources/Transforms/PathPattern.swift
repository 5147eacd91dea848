// Regular expressions over paths, matched in time that grows with the path and the pattern and no faster.
//
// A pattern is compiled at load into a small program, and all ways through it are followed side by side, byte by byte
// (Thompson 1968, Pike's captures): a path is read once, whatever it and the pattern look like. Backtracking, which the
// standard library's Regex does, takes exponential time on paths such as `/aaaa…b` for patterns such as `(a|aa)*`: a client
// would choose how long a worker stands still.
//
// Known: literals, `.`, classes (`[a-z]`, `[^/]`), `\d` `\w` and their opposites, `\` before any sign, groups `(…)` and
// `(?:…)`, `|`, and `*` `+` `?` `{m}` `{m,}` `{m,n}`, each as much as possible, or with a `?` behind it as little. A pattern
// matches a whole path or nothing, so there are no anchors.

/// Why a text is no pattern, no template or no origin.
package struct TransformError: Error, Equatable {
    package let message: String
}

package struct PathPattern: Hashable, Sendable {
    package let text: String
    /// How many groups capture: `{1}` to `{groups}`.
    package let groups: Int
    let program: [Instruction]

    /// Steps of a program. The time for a path is at most its length times this: 2 ms for 8 KiB.
    package static let stepsMax = 256
    /// As many digits as a reference has.
    package static let groupsMax = 9
    static let depthMax = 16

    enum Instruction: Hashable, Sendable {
        case byte(ByteSet)
        /// Goes on at both, rather at the first.
        case split(Int, Int)
        case jump(Int)
        /// Notes the position: 2n and 2n + 1 are the ends of group n.
        case save(Int)
        case match
    }

    package init(_ text: String) throws(TransformError) {
        var parser = PatternParser(Array(text.utf8))
        let node = try parser.parse()
        var program: [Instruction] = []
        try Self.emit(node, to: &program)
        program.append(.match)
        guard program.count <= Self.stepsMax else { throw Self.tooLong(program.count) }
        self.text = text
        self.program = program
        groups = parser.groups
    }

    private static func tooLong(_ count: Int) -> TransformError {
        TransformError(message: "takes \(count) steps or more; at most \(stepsMax)")
    }

    private static func emit(_ node: PatternNode, to program: inout [Instruction]) throws(TransformError) {
        // Checked on the way, or nested repetitions would grow beyond all memory first.
        guard program.count <= stepsMax else { throw tooLong(program.count) }
        switch node {
        case .bytes(let set): program.append(.byte(set))
        case .sequence(let nodes): for node in nodes { try emit(node, to: &program) }
        case .group(let number, let inner):
            program.append(.save(2 * number))
            try emit(inner, to: &program)
            program.append(.save(2 * number + 1))
        case .either(let nodes):
            var ends: [Int] = []
            for (index, node) in nodes.enumerated() {
                guard index < nodes.count - 1 else {
                    try emit(node, to: &program)
                    break
                }
                let split = program.count
                program.append(.jump(0))
                try emit(node, to: &program)
                ends.append(program.count)
                program.append(.jump(0))
                program[split] = .split(split + 1, program.count)
            }
            for end in ends { program[end] = .jump(program.count) }
        case .repeated(let inner, let least, let most, let greedy):
            for _ in 0..<least { try emit(inner, to: &program) }
            func split(_ inside: Int, _ outside: Int) -> Instruction {
                greedy ? .split(inside, outside) : .split(outside, inside)
            }
            guard let most else {
                let start = program.count
                program.append(.jump(0))
                try emit(inner, to: &program)
                program.append(.jump(start))
                program[start] = split(start + 1, program.count)
                return
            }
            var starts: [Int] = []
            for _ in least..<max(least, most) {
                starts.append(program.count)
                program.append(.jump(0))
                try emit(inner, to: &program)
            }
            for start in starts { program[start] = split(start + 1, program.count) }
        }
    }
}

/// A set of bytes.
struct ByteSet: Hashable, Sendable {
    private var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

    static func == (a: ByteSet, b: ByteSet) -> Bool { a.words == b.words }
    func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.1)
        hasher.combine(words.2)
        hasher.combine(words.3)
    }

    init() {}
    init(_ range: ClosedRange<UInt8>) { insert(range) }

    static var all: ByteSet { ByteSet(0...255) }
    static var digits: ByteSet { ByteSet(0x30...0x39) }
    static var word: ByteSet {
        var set = digits
        set.insert(0x41...0x5a)
        set.insert(0x61...0x7a)
        set.insert(0x5f...0x5f)
        return set
    }

    mutating func insert(_ range: ClosedRange<UInt8>) {
        for byte in range {
            let bit: UInt64 = 1 << UInt64(byte & 63)
            switch byte >> 6 {
            case 0: words.0 |= bit
            case 1: words.1 |= bit
            case 2: words.2 |= bit
            default: words.3 |= bit
            }
        }
    }

    mutating func formUnion(_ other: ByteSet) {
        words.0 |= other.words.0
        words.1 |= other.words.1
        words.2 |= other.words.2
        words.3 |= other.words.3
    }

    var inverted: ByteSet {
        var set = self
        set.words = (~words.0, ~words.1, ~words.2, ~words.3)
        return set
    }

    func contains(_ byte: UInt8) -> Bool {
        let bit: UInt64 = 1 << UInt64(byte & 63)
        let word =
            switch byte >> 6 {
            case 0: words.0
            case 1: words.1
            case 2: words.2
            default: words.3
            }
        return word & bit != 0
    }
}

// Matching
extension PathPattern {
    /// Whether the whole path matches; `captures` gets the groups, of which `{0}` is the path and those that took no part
    /// are empty.
    package func match(_ path: Span<UInt8>, captures: inout [Range<Int>]) -> Bool {
        var run = Run(slots: 2 * (groups + 1), steps: program.count)
        run.begin(program)
        for position in 0..<path.count {
            guard run.step(program, path[position], position) else { return false }
        }
        guard let found = run.end(program) else { return false }
        captures.removeAll(keepingCapacity: true)
        captures.append(0..<path.count)
        for group in 0..<groups {
            let (start, end) = (Int(found[2 * group + 2]), Int(found[2 * group + 3]))
            captures.append(start >= 0 && end >= start ? start..<end : 0..<0)
        }
        return true
    }

    /// The ways that are followed at one position, in the order of preference.
    private struct Run {
        private let slots: Int
        private var now = Ways()
        private var next = Ways()
        /// When each step was last reached: it is followed once a position, by the preferred way.
        private var reached: [Int]
        private var scratch: [Int32]

        struct Ways {
            var steps: [Int] = []
            var captures: [Int32] = []

            mutating func clear() {
                steps.removeAll(keepingCapacity: true)
                captures.removeAll(keepingCapacity: true)
            }
        }

        init(slots: Int, steps: Int) {
            self.slots = slots
            reached = Array(repeating: -1, count: steps)
            scratch = Array(repeating: -1, count: slots)
        }

        mutating func begin(_ program: [Instruction]) {
            follow(program, 0, position: 0)
            swap(&now, &next)
        }

        /// Takes a byte; `false` where no way leads on.
        mutating func step(_ program: [Instruction], _ byte: UInt8, _ position: Int) -> Bool {
            next.clear()
            for way in now.steps.indices {
                guard case .byte(let set) = program[now.steps[way]], set.contains(byte) else { continue }
                for slot in 0..<slots { scratch[slot] = now.captures[way * slots + slot] }
                follow(program, now.steps[way] + 1, position: position + 1)
            }
            swap(&now, &next)
            return !now.steps.isEmpty
        }

        /// The captures of the preferred way that has come to the end.
        func end(_ program: [Instruction]) -> ArraySlice<Int32>? {
            for way in now.steps.indices where program[now.steps[way]] == .match {
                return Array(now.captures[way * slots..<(way + 1) * slots])[...]
            }
            return nil
        }

        /// Adds all steps that take a byte, or the end, and are reached from here. As deep as the program is long.
        private mutating func follow(_ program: [Instruction], _ step: Int, position: Int) {
            guard reached[step] < position + 1 else { return }
            reached[step] = position + 1
            switch program[step] {
            case .byte, .match:
                next.steps.append(step)
                next.captures += scratch
            case .jump(let target): follow(program, target, position: position)
            case .split(let first, let second):
                follow(program, first, position: position)
                follow(program, second, position: position)
            case .save(let slot):
                let before = scratch[slot]
                scratch[slot] = Int32(truncatingIfNeeded: position)
                follow(program, step + 1, position: position)
                scratch[slot] = before
            }
        }
    }
}
