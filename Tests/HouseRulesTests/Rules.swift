// The house rules as values: what a rule forbids, and where it is allowed all the same.
//
// The rules look at text, not at a syntax tree: comments and string literals are blanked out first, and what is left is
// searched for words. That is enough for every rule here, needs no other library, and is quick.

/// A source file.
struct SourceFile {
    /// Relative to the folder `Sources`: `Gateway/Node.swift`.
    var path: String
    /// As written, line by line.
    var lines: [String]
    /// The same without comments and string literals.
    var code: [String]

    init(path: String, text: String) {
        self.path = path
        lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        code = Self.blanked(text).split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    }

    var module: String { String(path.prefix { $0 != "/" }) }

    /// Replaces comments and the insides of string literals by spaces; line ends stay.
    private static func blanked(_ text: String) -> String {
        enum State: Equatable {
            case code, lineComment
            case blockComment(Int)
            case string, longString
        }
        var state = State.code
        var output = ""
        let characters = Array(text)
        var i = 0
        func at(_ offset: Int) -> Character? { i + offset < characters.count ? characters[i + offset] : nil }
        while i < characters.count {
            let c = characters[i]
            if c == "\n" {
                if state == .lineComment || state == .string { state = .code }
                output.append("\n")
                i += 1
                continue
            }
            switch state {
            case .code:
                if c == "/", at(1) == "/" {
                    state = .lineComment
                } else if c == "/", at(1) == "*" {
                    state = .blockComment(1)
                    i += 1
                } else if c == "\"", at(1) == "\"", at(2) == "\"" {
                    state = .longString
                    i += 2
                } else if c == "\"" {
                    state = .string
                } else {
                    output.append(c)
                    i += 1
                    continue
                }
            case .lineComment: break
            case .blockComment(let depth):
                if c == "*", at(1) == "/" {
                    state = depth == 1 ? .code : .blockComment(depth - 1)
                    i += 1
                } else if c == "/", at(1) == "*" {
                    state = .blockComment(depth + 1)
                    i += 1
                }
            case .string:
                if c == "\\" {
                    i += 1
                } else if c == "\"" {
                    state = .code
                }
            case .longString:
                if c == "\\" {
                    i += 1
                } else if c == "\"", at(1) == "\"", at(2) == "\"" {
                    state = .code
                    i += 2
                }
            }
            output.append(" ")
            i += 1
        }
        return output
    }
}

/// A place that breaks a rule.
struct Breach: Equatable, CustomStringConvertible {
    var path: String
    var line: Int
    var reason: String
    var description: String { "\(path):\(line): \(reason)" }
}

struct Rule: Sendable, CustomStringConvertible {
    let description: String
    let check: @Sendable (SourceFile) -> [Breach]
    /// A made-up file that breaks the rule, and one that does not: a rule that cannot fail is none.
    let breaking: (path: String, text: String)
    let keeping: (path: String, text: String)
}

extension Rule {
    /// These words appear in the code of these modules only. A word that ends in `(` is a call.
    static func words(
        _ words: [String], onlyIn modules: Set<String> = [], _ reason: String, breaking: String
    ) -> Rule {
        Rule(
            description: "\(words.joined(separator: ", ")): \(reason)",
            check: { file in
                if modules.contains(file.module) { return [] }
                var breaches: [Breach] = []
                for (index, line) in file.code.enumerated() {
                    for word in words where contains(line, word) {
                        breaches.append(Breach(path: file.path, line: index + 1, reason: "\(word): \(reason)"))
                    }
                }
                return breaches
            },
            breaking: ("Gateway/MadeUp.swift", "\n\(breaking)\n"),
            keeping: (
                "\(modules.min() ?? "Gateway")/MadeUp.swift", modules.isEmpty ? "// \(breaking)\n" : "\n\(breaking)\n"
            ))
    }

    /// Whether a line holds a word with no letter, digit or underscore around it.
    private static func contains(_ line: String, _ word: String) -> Bool {
        func isPart(_ c: Character) -> Bool { c.isLetter || c.isNumber || c == "_" }
        return line.ranges(of: word).contains { range in
            let before = range.lowerBound == line.startIndex ? nil : line[line.index(before: range.lowerBound)]
            let after = range.upperBound == line.endIndex ? nil : line[range.upperBound]
            let first = word.first.map(isPart) ?? false
            // `UnsafeMut…` is meant by a word that ends in `*`; there is none: prefixes are listed without it.
            let last = word.last.map(isPart) ?? false
            return !(first && before.map(isPart) ?? false) && !(last && after.map(isPart) ?? false)
        }
    }
}
