# token.sh PROGRAM -- `sluice token` from outside: keys, tokens, and what is refused.
PROGRAM=$1
. "$(dirname "$0")/lib.sh"

# feed TEXT ARGS...  like run, with TEXT on standard input
feed() {
    text=$1
    shift
    shown="$*"
    rc=0
    printf '%s' "$text" | "$PROGRAM" "$@" >"$dir/out" 2>"$dir/err" || rc=$?
}
mode() { stat -c %a "$1"; }
# base64url on standard input to bytes
decode() { tr '_-' '/+' | awk '{ while (length($0) % 4) $0 = $0 "="; print }' | base64 -d; }
part() { cut -d. -f"$1" <"$2" | tr -d '\n'; }

# ---- key: on standard output, and in files that are not overwritten ----
run token key && is 0 && err '' && out_has '-----BEGIN PRIVATE KEY-----' &&
    out_has '-----BEGIN PUBLIC KEY-----' && out_has '# The private key: ' && out_has '# The public key: '
cp out both
run token key -alg hs256 && is 0 && out_has 'hs256:' && holds test "$(grep -c BEGIN out)" -eq 0
umask 022
for alg in eddsa es256; do
    run token key -alg $alg -o $alg.key && is 0 && err '' && out "private key: $alg.key
public key: $alg.key.pub"
    holds test "$(mode $alg.key)" = 600
    holds test "$(mode $alg.key.pub)" = 644
    holds grep -q 'BEGIN PRIVATE KEY' $alg.key
    holds grep -q 'BEGIN PUBLIC KEY' $alg.key.pub
    holds test "$(grep -c PRIVATE $alg.key.pub)" -eq 0
done
run token key -o hs256.key -alg=hs256 && is 0 && out 'key: hs256.key'
holds test "$(mode hs256.key)" = 600
holds test ! -e hs256.key.pub
cp eddsa.key saved
run token key -o eddsa.key && is 1 && out '' &&
    err "Error: 'eddsa.key.pub' exists, and a key is never overwritten"
mv eddsa.key.pub pub
run token key -o eddsa.key && is 1 && err "Error: 'eddsa.key' exists, and a key is never overwritten"
holds test ! -e eddsa.key.pub
mv pub eddsa.key.pub
holds cmp -s saved eddsa.key
run token key -o none/such/key && is 1 && out '' && err_has 'none/such/key.pub'
run token key -alg rsa && is 1 && err_has "Error: -alg 'rsa': expected eddsa, es256 or hs256"
run token key -key x && is 1 && err_has 'Error: sluice token key takes no -key'
run token key x && is 1 && err_has 'Error: too many arguments'
run token && is 1 && err 'Error: one of key, new and check required
Try: sluice help token'
run token mint && is 1 && err_has 'Error: sluice token mint: expected key, new or check'

# ---- new and check, with each kind of key ----
for alg in eddsa es256 hs256; do
    pub=$alg.key.pub
    [ -e $pub ] || pub=$alg.key
    run token new -key $alg.key -namespace shop -access ro && is 0 && err ''
    holds test "$(wc -l <out)" -eq 1
    cp out token
    run token check -key $pub "$(cat token)" && is 0 && err '' && out_has 'The token is good.' &&
        out_has 'namespace  "shop"' && out_has 'access     read' && out_has 'expires    20' &&
        out_has '"id": "shop"' && out_has '"a": "ro"'
    feed "$(cat token)" token check -json -key $pub && is 0 && err '' && out_has '"id": "shop"' &&
        holds test "$(head -c 1 out)" = '{'
    feed "
  $(cat token)
" token check -key $pub - && is 0 && out_has 'The token is good.'
    feed "$(cat token)x" token check -key $pub && is 1 && out '' && err_has 'Error: the signature of the token'
    feed "$(cut -d. -f1-2 token)." token check -key $pub && is 1 && err_has 'Error: the signature of the token'
    feed "$(cut -d. -f1-2 token)" token check -key $pub && is 1 && err_has 'is not three parts'
    for other in eddsa.key.pub es256.key.pub hs256.key; do
        [ $other = $pub ] && continue
        feed "$(cat token)" token check -key $other && is 1 && out '' && err_has ', and there is no key for that'
        cat $other $pub >several
        feed "$(cat token)" token check -key several && is 0
    done
done
run token new -key both && is 0 # the private key stands first
run token check -key both x.y.z && is 1 && err_has "Error: 'both': key 1: a private key, and who checks"
run token key -o second.key && run token new -key eddsa.key && cp out token
feed "$(cat token)" token check -key second.key.pub && is 1 && err 'Error: the signature of the token is not by the key'
cat second.key.pub eddsa.key.pub >rotated
feed "$(cat token)" token check -key rotated && is 0 && out_has 'namespace  all' && out_has 'access     read and write'

# ---- the claims ----
claims() { part 2 out | decode; }
claims_match() { what="claims like $1" && check sh -c "printf '%s' '$(claims)' | grep -qE '$1'"; }
now=$(date +%s)
run token new -key eddsa.key -namespace shop -expires never && claims_match '^\{"id":"shop","a":"rw","iat":[0-9]+\}$'
run token new -key eddsa.key && claims_match '^\{"a":"rw","iat":[0-9]+,"exp":[0-9]+\}$'
iat=$(claims | sed 's/.*"iat":\([0-9]*\).*/\1/')
holds test "$iat" -ge "$now" -a "$iat" -le $((now + 60))
holds test "$(claims | sed 's/.*"exp":\([0-9]*\).*/\1/')" -eq $((iat + 30 * 86400))
run token new -key eddsa.key -namespace a,b,c -access ro -expires 90m &&
    claims_match '^\{"p":\{"ro":\{"ns":\["a","b","c"\]\}\},"iat":'
feed "$(cat out)" token check -key eddsa.key.pub && is 0 && out_has 'namespaces, ro  ["a","b","c"]'
run token new -key eddsa.key -claims '{"sub":"alice","exp":4000000000,"iat":1}' &&
    claims_match '^\{"a":"rw","iat":1,"exp":4000000000,"sub":"alice"\}$'
run token new -key eddsa.key -claims '{"p":{"ddl":{"ns":["x"]}}}' -expires never &&
    claims_match '^\{"iat":[0-9]+,"p":\{"ddl":\{"ns":\["x"\]\}\}\}$'
run token new -key eddsa.key -claims '{"exp":1000000000}' && cp out token
feed "$(cat token)" token check -key eddsa.key.pub && is 1 && out '' &&
    err 'Error: the token has expired: 2001-09-09T01:46:40Z'
run token new -key eddsa.key -claims '{"nbf":4000000000}' -expires never && cp out token
feed "$(cat token)" token check -json -key eddsa.key.pub && is 1 && out '' &&
    err 'Error: the token is not valid yet, but later: 2096-10-02T07:06:40Z'

# ---- new: what is refused ----
run token new && is 1 && err 'Error: -key FILE required
Try: sluice help token'
run token new -key eddsa.key.pub && is 1 && out '' && err_has 'a public key, which only checks tokens'
run token new -key nowhere && is 1 && err_has 'nowhere'
run token new -key config.yml && is 1 && err_has "'config.yml': private key: something else"
run token new -key eddsa.key -access rwx && is 1 && err_has "Error: -access 'rwx': expected ro or rw"
for e in 0 0d -1d 1w 500ms 36501d '' soon d; do
    run token new -key eddsa.key -expires "$e" && is 1 && out '' && err_has "Error: -expires '$e': expected"
done
for n in '' , a, ,a a,,b; do
    run token new -key eddsa.key -namespace "$n" && is 1 && out '' && err_has 'Error: -namespace: a name has 1 to 255'
done
run token new -key eddsa.key -namespace "$(printf '\377')" && is 1 && err_has 'is not UTF-8'
run token new -key eddsa.key -claims '{' && is 1 && err_has 'Error: -claims: no JSON: '
run token new -key eddsa.key -claims '[]' && is 1 && err_has 'Error: -claims: a JSON object required'
run token new -key eddsa.key -claims '{"exp":"x"}' && is 1 && err_has "'exp' is not a number"
run token new -key eddsa.key -claims '{"id":"b"}' -namespace a && is 1 && out '' &&
    err_has "Error: -claims with 'id' and -namespace: give one of them"
run token new -key eddsa.key -claims '{"a":"ro"}' -access rw && is 1 && out '' && err_has "'a' and -access"
run token new -key eddsa.key -claims '{"exp":1}' -expires 1h && is 1 && out '' && err_has "'exp' and -expires"
run token new -key eddsa.key shop && is 1 && err_has 'Error: too many arguments'
run token new -key eddsa.key -json && is 1 && err_has 'Error: sluice token new takes no -json'

# ---- check: what is refused ----
feed '' token check -key eddsa.key.pub && is 1 && err_has 'Error: there is no token'
feed "$(head -c 20000 /dev/zero | tr '\0' x)" token check -key eddsa.key.pub && is 1 && err_has 'more than'
feed "$(head -c 17000 /dev/zero | tr '\0' x)" token check -key eddsa.key.pub && is 1 && err_has 'more than 16384 bytes'
run token check x.y.z && is 1 && err_has 'Error: -key FILE required'
run token check -key config.yml x.y.z && is 1 && err_has "'config.yml': key 1: "
run token check -key eddsa.key.pub a b && is 1 && err_has 'Error: too many arguments'
if [ -e /dev/full ]; then
    rc=0
    shown='token new >/dev/full'
    "$PROGRAM" token new -key eddsa.key >/dev/full 2>err || rc=$?
    is 1 && err_has 'write to standard output'
fi

# ---- with OpenSSL's own program, both ways ----
if command -v openssl >/dev/null 2>&1; then
    run token new -key eddsa.key && part 3 out | decode >sig && cut -d. -f1-2 out | tr -d '\n' >signed
    holds openssl pkeyutl -verify -pubin -inkey eddsa.key.pub -rawin -in signed -sigfile sig -out /dev/null
    openssl genpkey -algorithm ed25519 -out o.key 2>/dev/null
    openssl pkey -in o.key -pubout -out o.pub 2>/dev/null
    openssl ecparam -name prime256v1 -genkey -out e.key 2>/dev/null
    openssl pkey -in e.key -pubout -out e.pub 2>/dev/null
    for k in o e; do
        run token new -key $k.key && is 0 && cp out token
        feed "$(cat token)" token check -key $k.pub && is 0 && out_has 'The token is good.'
    done
    # The 32 bytes of a key, as libSQL servers take them, too.
    openssl pkey -pubin -in o.pub -outform DER | tail -c 32 | base64 | tr '/+' '_-' | tr -d '=' >o.raw
    run token new -key o.key && cp out token
    feed "$(cat token)" token check -key o.raw && is 0
    openssl genpkey -algorithm rsa -out r.key 2>/dev/null
    run token new -key r.key && is 1 && out '' && err_has 'expected Ed25519 or EC on the curve P-256'
fi

finish
