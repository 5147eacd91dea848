// Keys that stand more than once in one mapping. The YAML library stops at the first mapping that has some. So that the
// rest of the text is checked too, each gets a name that nothing else has, in a copy of the text where everything keeps
// its place, until no two are the same.

struct RepeatedKeys {
    /// The copy.
    private(set) var text: String
    /// The keys that have another name in it, by their place, and what they are called in the original.
    private(set) var names: [Origin: String] = [:]

    init(_ text: String) { self.text = text }

    /// Renames one key; `false` where it does not stand at that place as it is read, or too many have been renamed: each
    /// costs another reading of the text.
    mutating func rename(_ name: String, line: Int, column: Int) -> Bool {
        guard names.count < Bounds.repeatedKeysMax, !name.isEmpty,
            let place = Self.index(in: text, line: line, column: column)
        else { return false }
        let scalars = text.unicodeScalars
        var start = place
        if start < scalars.endIndex, ["\"", "'"].contains(scalars[start]) { start = scalars.index(after: start) }
        var end = start
        for scalar in name.unicodeScalars {
            guard end < scalars.endIndex, scalars[end] == scalar else { return false }
            end = scalars.index(after: end)
        }
        // A character for private use, of which YAML knows nothing, for each of the name's: columns stay what they are.
        let mark = Unicode.Scalar(UInt32(0xf000 + names.count)) ?? "\u{f000}"
        let other = String.UnicodeScalarView(name.unicodeScalars.map { _ in mark })
        var copy = scalars
        copy.replaceSubrange(start..<end, with: other)
        text = String(copy)
        names[.file(line: line, column: column)] = name
        return true
    }

    /// Places are counted as the library counts them: a byte order mark is no character.
    private static func index(in text: String, line: Int, column: Int) -> String.Index? {
        let scalars = text.unicodeScalars
        var (thisLine, thisColumn) = (1, 1)
        var index = scalars.startIndex
        while index < scalars.endIndex {
            if thisLine == line, thisColumn == column { return index }
            let next = scalars.index(after: index)
            switch scalars[index].value {
            case 0xfeff where index == scalars.startIndex: break
            case 0x0d where next < scalars.endIndex && scalars[next] == "\n": break
            case 0x0a, 0x0d, 0x85, 0x2028, 0x2029: (thisLine, thisColumn) = (thisLine + 1, 1)
            default: thisColumn += 1
            }
            index = next
        }
        return nil
    }

    /// The entries of a mapping, without those that were renamed. What a section holds that stands twice is one.
    func merged(_ entries: [Entry]) -> [Entry] {
        if names.isEmpty { return entries }
        var kept = entries.filter { names[$0.origin] == nil }
        for entry in entries {
            guard let name = names[entry.origin], case .mapping(let more) = entry.value.content,
                let place = kept.firstIndex(where: { $0.key == name }),
                case .mapping(let known) = kept[place].value.content
            else { continue }
            let keys = Set(known.map(\.key))
            kept[place].value.content = .mapping(known + more.filter { !keys.contains($0.key) })
        }
        return kept
    }
}
