// The files that the binary carries (pack.py), as bytes. METIER_BUNDLE is the bundle's path.
const unsigned char metier_bundle[] = {
#embed METIER_BUNDLE
};
const unsigned long metier_bundle_size = sizeof metier_bundle;
