// Command linktest is linked by a test, to see whether package children can be.
package main

import "github.com/larkshim/lark/children"

func main() {
	owner, err := children.NewOwner(nil)
	if err == nil {
		err = owner.Close()
	}
	if err != nil {
		panic(err)
	}
}
