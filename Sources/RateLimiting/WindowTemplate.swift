// The transaction, formatted once by hiredis for each length of key, and filled in from then on. Between two decisions
// only five texts differ: the key, the horizon and the score, which have fixed widths, and the entries' number and names.
// An entry is the same words each time, so more of them are the same piece with other names. Formatting eight commands
// for each decision, or four words for each entry, cost more than parsing the request.

import Hiredis
import Identity
import LinuxIO
import Primitives

final class WindowTemplate {
    /// A `ZADD` with one entry.
    private struct Addition {
        /// Where the number of its words stands.
        let count: Range<Int>
        let entry: Range<Int>
        /// Where the entry's name begins.
        let name: Int
        /// Words beside the entries.
        let words: Int
    }

    /// A transaction of one entry: that which was written last.
    private var text = ByteBuffer()
    /// How long the `TIME` is that it begins with.
    private let timeLength: Int
    private let keyLength: Int
    private let nameLength: Int
    private let keys: [Int]
    private let horizon: Int
    private let score: Int
    /// The one that puts entries last in rank, and the one that gives survivors their time.
    private let entering: Addition
    private let scoring: Addition

    /// Times of 16 digits: from 2001 to 2286.
    private static let timeDigits = 16

    /// Formats a transaction and finds what is to be filled in; `nil` where it is not of the shape that can be.
    init?(_ transaction: WindowTransaction, _ key: WindowKey, _ names: MemberNames) {
        guard Self.isUsual(transaction, key) else { return nil }
        let one = WindowTransaction(
            transaction.subject, first: transaction.first, count: 1, sentAt: transaction.sentAt,
            lower: transaction.lower, score: transaction.score)
        var writer = CommandWriter()
        writer.time()
        timeLength = writer.output.count
        one.write(key, names, hasTime: true, to: &writer)
        let bytes = writer.output.array
        func text(_ body: (inout ByteBuffer) -> Void) -> [UInt8] {
            var buffer = ByteBuffer()
            body(&buffer)
            return buffer.array
        }
        let keyText = text { key.write(one.subject, to: &$0) }
        let nameText = text { names.write(one.first, to: &$0) }
        keyLength = keyText.count
        let nameLength = nameText.count
        self.nameLength = nameLength
        let lines = Self.lines(of: bytes)
        func places(of text: [UInt8]) -> [Int] {
            lines.filter { $0.count == text.count && bytes[$0].elementsEqual(text) }.map(\.lowerBound)
        }
        keys = places(of: keyText)
        let named = places(of: nameText)
        let horizons = places(of: Array("(\(Self.horizon(one, key))".utf8))
        let scores = places(of: Array("\(one.score.microseconds)".utf8))
        guard keys.count == (key.tellsRemaining ? 7 : 6), named.count == 2, horizons.count == 1, scores.count == 1
        else { return nil }
        horizon = horizons[0] + 1
        score = scores[0]
        let nameHead = "$\(nameLength)\r\n".utf8.count
        func addition(_ name: Int, scoreLength: Int, words: Int) -> Addition? {
            let entry = name - nameHead - "$\(scoreLength)\r\n".utf8.count - scoreLength - 2
            let count = Array("*\(words + 2)".utf8)
            guard let place = places(of: count).last(where: { $0 < entry }) else { return nil }
            return Addition(
                count: (place + 1)..<(place + count.count), entry: entry..<(name + nameLength + 2), name: name,
                words: words)
        }
        guard let entering = addition(named[0], scoreLength: "+inf".utf8.count, words: 2),
            let scoring = addition(named[1], scoreLength: Self.timeDigits, words: 4)
        else { return nil }
        self.entering = entering
        self.scoring = scoring
        self.text.append(bytes)
    }

    private static func isUsual(_ transaction: WindowTransaction, _ key: WindowKey) -> Bool {
        let usual: ClosedRange<Int64> = 1_000_000_000_000_000...9_999_999_999_999_999
        return transaction.largest == 1 && transaction.keptFree == 0 && usual.contains(transaction.score.microseconds)
            && usual.contains(horizon(transaction, key))
    }

    private static func horizon(_ transaction: WindowTransaction, _ key: WindowKey) -> Int64 {
        (transaction.lower - key.policy.window).microseconds
    }

    /// The lines of what is formatted, without their ends: every argument is one.
    private static func lines(of bytes: [UInt8]) -> [Range<Int>] {
        var lines: [Range<Int>] = []
        var start = 0
        for (place, byte) in bytes.enumerated() where byte == UInt8(ascii: "\n") {
            lines.append(start..<(place - 1))
            start = place + 1
        }
        return lines
    }

    /// Writes a transaction, if its key has this template's length, its times have their usual width and no request in it
    /// takes more than one slot, and none is kept free.
    ///
    /// - Parameter hasTime: whether `TIME` stands before it already.
    /// - Parameter scratch: the text of its key.
    func write(
        _ transaction: WindowTransaction, _ key: WindowKey, _ names: MemberNames, hasTime: Bool,
        scratch: inout ByteBuffer, to output: inout ByteBuffer
    ) -> Bool {
        guard Self.isUsual(transaction, key), scratch.count == keyLength else { return false }
        var text = self.text.take()
        defer { swap(&text, &self.text) }
        for place in keys { text.overwrite(at: place, with: scratch.bytes) }
        scratch.clear()
        scratch.append(decimal: Int(Self.horizon(transaction, key)))
        text.overwrite(at: horizon, with: scratch.bytes)
        scratch.clear()
        scratch.append(decimal: Int(transaction.score.microseconds))
        text.overwrite(at: score, with: scratch.bytes)

        let start = output.count
        let first = hasTime ? timeLength : 0
        guard write(entering, from: first, transaction, names, &text, scratch: &scratch, to: &output),
            write(scoring, from: entering.entry.upperBound, transaction, names, &text, scratch: &scratch, to: &output)
        else {
            // Sequence numbers beyond 48 bits have more digits.
            output.truncate(to: start)
            return false
        }
        output.append(text.bytes.extracting(scoring.entry.upperBound..<text.count))
        return true
    }

    /// Writes what stands before a `ZADD`'s entries, and those of the transaction.
    private func write(
        _ addition: Addition, from start: Int, _ transaction: WindowTransaction, _ names: MemberNames,
        _ text: inout ByteBuffer, scratch: inout ByteBuffer, to output: inout ByteBuffer
    ) -> Bool {
        output.append(text.bytes.extracting(start..<addition.count.lowerBound))
        output.append(decimal: addition.words + 2 * transaction.count)
        output.append(text.bytes.extracting(addition.count.upperBound..<addition.entry.lowerBound))
        for offset in 0..<UInt64(transaction.count) {
            scratch.clear()
            names.write(transaction.first &+ offset, to: &scratch)
            guard scratch.count == nameLength else { return false }
            text.overwrite(at: addition.name, with: scratch.bytes)
            output.append(text.bytes.extracting(addition.entry))
        }
        return true
    }
}

/// The templates of a policy, by the length of the subject's text.
final class WindowTemplates {
    private let key: WindowKey
    private var templates: [WindowTemplate?] = []
    private var scratch = ByteBuffer(capacity: 128)

    init(_ key: WindowKey) { self.key = key }

    /// Writes a transaction, by a template where it has the usual shape.
    ///
    /// - Parameter hasTime: whether `TIME` stands before it already.
    func write(
        _ transaction: WindowTransaction, _ names: MemberNames, hasTime: Bool, to writer: inout CommandWriter
    ) {
        var scratch = self.scratch.take()
        scratch.clear()
        key.write(transaction.subject, to: &scratch)
        let length = scratch.count
        while templates.count <= length { templates.append(nil) }
        if templates[length] == nil { templates[length] = WindowTemplate(transaction, key, names) }
        let isWritten =
            templates[length]?.write(
                transaction, key, names, hasTime: hasTime, scratch: &scratch, to: &writer.output) ?? false
        swap(&scratch, &self.scratch)
        if !isWritten { transaction.write(key, names, hasTime: hasTime, to: &writer) }
    }
}
