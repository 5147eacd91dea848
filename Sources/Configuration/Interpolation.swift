// `${VAR}`, `${VAR:-default}` and `$$`, in values and not in keys.
//
// It runs on the tree after the overrides: a variable that an override replaced need not exist, and what a variable
// holds is always one value, never structure.

enum Interpolation {
    /// Replaces the variables of one scalar.
    /// - Throws: for an undefined variable without a default, and for a `$` that begins neither form.
    static func expand(_ text: String, environment: [String: String]) throws(Invalid) -> String {
        if !text.utf8.contains(UInt8(ascii: "$")) { return text }
        var result = ""
        var rest = Substring(text)
        while let dollar = rest.firstIndex(of: "$") {
            result += rest[..<dollar]
            rest = rest[dollar...].dropFirst()
            switch rest.first {
            case "$":
                result += "$"
                rest = rest.dropFirst()
            case "{":
                guard let end = rest.firstIndex(of: "}") else {
                    throw Invalid("`${` without `}`; write ${NAME}, or $$ for a dollar sign")
                }
                result += try value(of: rest[..<end].dropFirst(), environment)
                rest = rest[end...].dropFirst()
            default:
                throw Invalid("a lone `$`; write ${NAME} for a variable, or $$ for a dollar sign")
            }
        }
        return result + rest
    }

    /// The value of what stands between the braces. As in a shell, `:-` also covers a variable that is set but empty.
    private static func value(of inner: Substring, _ environment: [String: String]) throws(Invalid) -> String {
        let name = inner.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
        let tail = inner[name.endIndex...]
        guard let first = name.first, !first.isNumber, tail.isEmpty || tail.hasPrefix(":-") else {
            throw Invalid("\(quoted("${\(inner)}")) is no variable; write ${NAME} or ${NAME:-default}")
        }
        if tail.isEmpty {
            guard let value = environment[String(name)] else {
                throw Invalid("the variable \(name) is not set; set it, or write ${\(name):-default}")
            }
            return value
        }
        let fallback = tail.dropFirst(2)
        if fallback.contains("${") { throw Invalid("a default can not hold another variable; write its value") }
        if let value = environment[String(name)], !value.isEmpty { return value }
        return String(fallback)
    }
}
