/// Everything that is wrong with a configuration, found in one pass. Never empty.
package struct ConfigurationErrors: Error, Equatable, Sendable, CustomStringConvertible {
    /// In the order of the file, then of the overrides; at most `Bounds.errorsMax`.
    package let errors: [ConfigurationError]
    /// Errors beyond that number.
    package let omitted: Int

    init(_ all: [ConfigurationError]) {
        errors = Array(all.prefix(Bounds.errorsMax))
        omitted = all.count - errors.count
    }

    /// One error a line.
    package var description: String {
        var lines = errors.map(\.description)
        if omitted > 0 { lines.append("and \(omitted) more") }
        return lines.joined(separator: "\n")
    }
}

/// One thing that is wrong, where, and what to write instead.
package struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Place: Equatable, Sendable {
        /// The file as a whole: it is missing, unreadable, too large.
        case file(String)
        /// Line and column count from 1, the column in Unicode scalars.
        case position(file: String, line: Int, column: Int)
        /// The key of a `--set KEY=VALUE`. The value is not kept: it may be a secret.
        case override(key: String)
    }

    package let place: Place
    /// The key that is wrong, such as `services[0].strategy`; `nil` where the place says it all.
    package let key: String?
    package let message: String

    /// `gateway.yaml:3:9: gateway.port: message`.
    package var description: String {
        let prefix =
            switch place {
            case .file(let name): name
            case .position(let file, let line, let column): "\(file):\(line):\(column)"
            case .override(let key): "--set \(printable(key))=…"
            }
        guard let key else { return "\(prefix): \(message)" }
        return "\(prefix): \(key): \(message)"
    }
}

/// Why one value is refused; whoever reads the value knows its place.
package struct Invalid: Error, CustomStringConvertible {
    let message: String
    package var description: String { message }

    init(_ message: String) { self.message = message }
}

/// The text in backticks, fit to print.
func quoted(_ text: some StringProtocol) -> String { "`\(printable(text))`" }

/// The text without control characters and cut where it is long, so that an error stays one line.
func printable(_ text: some StringProtocol) -> String {
    var shown = ""
    var count = 0
    for scalar in text.unicodeScalars {
        if count == Bounds.quotedScalarsMax { return shown + "…" }
        let isControl = scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value)
        let turnsText = (0x200b...0x200f).contains(scalar.value) || (0x2028...0x202e).contains(scalar.value)
        shown.unicodeScalars.append(isControl || turnsText ? "\u{fffd}" : scalar)
        count += 1
    }
    return shown
}
