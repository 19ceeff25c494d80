# Flattens the YAML that cloud-init seeds are written in (JSON too) into lines "path.to.value<TAB>value".
# A shell can read those. Newlines, tabs and backslashes in a value are escaped, for printf %b.
# Covered: block mappings and lists, flow style over any number of lines, quotes, | and > texts.
# Not covered: anchors, tags, plain texts that run over several lines.

function join(path, key) { return path == "" ? key : path "." key }
function trim(s) { sub(/^[ \t]+/, "", s); sub(/[ \t]+$/, "", s); return s }
function indent_of(s) { match(s, /^ */); return RLENGTH }

function emit(path, value,    i, c, out) {
    out = ""
    for (i = 1; i <= length(value); i++) {
        c = substr(value, i, 1)
        if (c == "\\") c = "\\\\"
        else if (c == "\n") c = "\\n"
        else if (c == "\t") c = "\\t"
        out = out c
    }
    print path "\t" out
}

# The quoted text at the start of s; leaves in `taken` how many characters it covered.
function unquote(s,    quote, i, c, out) {
    quote = substr(s, 1, 1)
    out = ""
    for (i = 2; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (c == quote) {
            if (quote == "'" && substr(s, i + 1, 1) == "'") i++
            else break
        } else if (c == "\\" && quote == "\"") {
            i++
            c = substr(s, i, 1)
            if (c == "n") c = "\n"
            else if (c == "t") c = "\t"
        }
        out = out c
    }
    taken = i
    return out
}

function is_quoted(s) { return s ~ /^["']/ }

# How long the key is when s reads "key: ..."; 0 when s is no mapping entry.
function key_length(s,    at_colon) {
    if (s ~ /^[\[{|>#&*!]/) return 0
    if (is_quoted(s)) {
        unquote(s)
        return substr(s, taken + 1) ~ /^:( |$)/ ? taken : 0
    }
    at_colon = index(s, ": ")
    if (at_colon) return at_colon - 1
    return s ~ /:$/ ? length(s) - 1 : 0
}

function skip_blank() {
    while (line <= lines && text[line] ~ /^[ \t]*(#.*)?$|^---|^\.\.\./) line++
}

function plain(s) {
    sub(/[ \t]+#.*$/, "", s)
    s = trim(s)
    return s == "~" || s == "null" ? "" : s
}

function block_text(style, indent, path,    out, depth, s) {
    line++
    depth = -1
    out = ""
    for (; line <= lines; line++) {
        s = text[line]
        if (s !~ /^[ \t]*$/) {
            if (indent_of(s) <= indent) break
            if (depth < 0) depth = indent_of(s)
        }
        out = out substr(s, depth + 1) (style ~ /^>/ ? " " : "\n")
    }
    sub(/[ \n]+$/, "", out)
    emit(path, style ~ /-/ || out == "" ? out : out "\n")
}

function nested(indent, path, in_mapping,    deeper) {
    line++
    skip_blank()
    deeper = line <= lines ? indent_of(text[line]) : -1
    if (deeper > indent || (in_mapping && deeper == indent && substr(text[line], indent + 1) ~ /^-( |$)/))
        block(deeper, path)
    else
        emit(path, "")
}

function value(s, indent, path, in_mapping) {
    if (s == "" || s ~ /^#/) nested(indent, path, in_mapping)
    else if (s ~ /^[|>]/) block_text(s, indent, path)
    else if (s ~ /^[\[{]/) { buffer = s; position = 1; line++; flow(path) }
    else if (is_quoted(s)) { line++; emit(path, unquote(s)) }
    else { line++; emit(path, plain(s)) }
}

function block(indent, path,    s, size, key, count, deeper, in_list) {
    count = 0
    in_list = substr(text[line], indent + 1) ~ /^-( |$)/
    while (1) {
        skip_blank()
        if (line > lines || indent_of(text[line]) != indent) return
        s = substr(text[line], indent + 1)
        # A list may stand no deeper than its key: the next key ends it.
        if (in_list != (s ~ /^-( |$)/)) return
        if (in_list) {
            # With its dash blanked out, the rest of the line is a value that stands deeper.
            text[line] = substr(text[line], 1, indent) " " substr(s, 2)
            key = join(path, count++)
            s = trim(substr(s, 2))
            deeper = indent_of(text[line])
            if (s != "" && s !~ /^#/ && (key_length(s) || s ~ /^-( |$)/)) block(deeper, key)
            else value(s, indent, key, 0)
        } else {
            size = key_length(s)
            if (!size) { line++; continue }
            key = substr(s, 1, size)
            if (is_quoted(key)) key = unquote(key)
            value(trim(substr(s, size + 2)), indent, join(path, key), 1)
        }
    }
}

# Flow style: `buffer` holds the line being read, `position` the place in it.
function peek() {
    while (1) {
        while (substr(buffer, position, 1) ~ /^[ \t]$/) position++
        if (position <= length(buffer) && substr(buffer, position, 1) != "#") return substr(buffer, position, 1)
        if (line > lines) return ""
        buffer = text[line++]
        position = 1
    }
}

function token(    rest, i, c) {
    peek()
    rest = substr(buffer, position)
    if (is_quoted(rest)) { rest = unquote(rest); position += taken; return rest }
    for (i = 1; i <= length(rest); i++) {
        c = substr(rest, i, 1)
        if (index(",]}", c) || (c == ":" && substr(rest, i + 1) ~ /^( |$)/)) break
    }
    position += i > 1 ? i - 1 : 1
    return plain(substr(rest, 1, i - 1))
}

function flow(path,    c, count, key) {
    c = peek()
    if (c == "[") {
        position++
        count = 0
        while ((c = peek()) != "]" && c != "") {
            flow(join(path, count++))
            if (peek() == ",") position++
        }
        position++
    } else if (c == "{") {
        position++
        while ((c = peek()) != "}" && c != "") {
            key = token()
            if (peek() == ":") { position++; flow(join(path, key)) }
            else emit(join(path, key), "")
            if (peek() == ",") position++
        }
        position++
    } else if (c != "") emit(path, token())
}

{ sub(/\r$/, ""); text[++lines] = $0 }

END {
    line = 1
    skip_blank()
    if (line <= lines) {
        if (text[line] ~ /^[ \t]*[\[{]/) { buffer = text[line++]; position = 1; flow("") }
        else block(indent_of(text[line]), "")
    }
}
